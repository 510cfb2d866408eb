"""Fixtures that start the real service. `judge_service.py` beside this file knows how."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from judge_service import Judge, running


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """One service for all tests that leave it as it is. Its time limit is 2 s, its workers 2."""
    with running(tmp_path_factory.mktemp("judge"), "--workers", "2", MAX_EXECUTION_TIME="2") as service:
        yield service


@pytest.fixture
def start_judge(tmp_path: Path) -> Iterator[Callable[..., Judge]]:
    """Starts services of a test's own; all are stopped at its end."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(*arguments: str, **settings: str) -> Judge:
            nonlocal count
            count += 1
            folder = tmp_path / str(count)
            folder.mkdir()
            settings.setdefault("PRELOAD", "json")  # quicker to start than with numpy and sympy
            if "uid" in settings:
                os.chmod(folder, 0o777)
                for parent in folder.parents:
                    if parent.is_relative_to(tmp_path.parents[2]) and parent != tmp_path.parents[2]:
                        os.chmod(parent, 0o755)
            return stack.enter_context(running(folder, *arguments, **settings))

        yield start
