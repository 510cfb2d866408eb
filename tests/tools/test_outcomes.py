"""What a tool raises is typed at one boundary."""

import pytest

from cleaner.errors import ToolInfrastructureError
from cleaner.tools.outcomes import UNAVAILABLE_TEXT, outcome_of
from code_judge.client import JudgeRefused, JudgeUnavailable


@pytest.mark.parametrize(
    "error", [ToolInfrastructureError("x"), JudgeUnavailable("x"), JudgeRefused("x", 401)], ids=repr
)
def test_an_outage_is_never_the_models_mistake(error: Exception) -> None:
    outcome = outcome_of({}, "a traceback", error)
    assert (outcome.status, outcome.text, outcome.retryable) == ("infrastructure", UNAVAILABLE_TEXT, True)


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), "program_error"), (TimeoutError(), "timeout")]
)
def test_other_exceptions_are_the_tools_own(error: Exception, status: str) -> None:
    assert outcome_of({}, "text", error).status == status
