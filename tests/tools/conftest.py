"""A server that plays code-judge: what it answers is scripted."""

from collections.abc import Iterator

import pytest
from scripted_judge import ScriptedJudge, scripted_judge


@pytest.fixture
def judge() -> Iterator[ScriptedJudge]:
    """A new one for each test."""
    with scripted_judge() as server:
        yield server
