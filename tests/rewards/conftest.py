"""The real judge, with a limit of 2 s, and the reward as verl calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from judge_service import running

from cleaner.rewards.recipe import compute_score


@pytest.fixture(scope="session")
def judge_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service of two workers."""
    with running(tmp_path_factory.mktemp("judge"), "--workers", "2", MAX_EXECUTION_TIME="2") as service:
        yield service.url


@pytest.fixture
def score_all(judge_url: str) -> Callable[..., list[dict[str, Any]]]:
    """Scores many (data source, response, ground truth) at once, as a step's trajectories come."""

    def score(rows: list[tuple[str, str, Any]], **settings: Any) -> list[dict[str, Any]]:
        async def gather() -> list[dict[str, Any]]:
            return await asyncio.gather(
                *(compute_score(*row, {}, **{"judge_url": judge_url, **settings}) for row in rows)
            )

        return asyncio.run(gather())

    return score


@pytest.fixture
def score(score_all: Callable[..., list[dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """Scores one response."""
    return lambda source, response, truth, **settings: score_all([(source, response, truth)], **settings)[0]
