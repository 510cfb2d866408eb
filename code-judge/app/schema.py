"""What the service takes and answers over HTTP."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, Field, PlainValidator, WithJsonSchema

Reason = Literal["", "internal_error", "worker_timeout", "queue_timeout", "invalid_input"]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    return value


# Any JSON string, lone surrogates too: one bad item must not refuse the whole batch, so it is judged item
# by item.
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]


class Submission(BaseModel):
    """One program to run, and what it should print, or how to test it. Unknown fields are ignored."""

    sub_id: Text | None = Field(None, description='echoed in the answer; null or "": a new uuid4')
    type: Literal["python", "cpp", "math"] = "python"
    solution: Text = Field(description='the program\'s text; for "math" a final answer')
    input: Text | None = Field(None, description="its stdin")
    expected_output: Text | None = Field(
        None, description='`success` needs this on stdout, both stripped; for "math" the right answer'
    )
    fn_name: Text | None = Field(
        None,
        validation_alias=AliasChoices("fn_name", "entry_point"),
        description="the function that `tests` call, of the module or of its class Solution; also `entry_point`",
    )
    tests: Any = Field(  # a wrong shape makes one item invalid, not its batch: `intake` looks at it
        None,
        description='calls of `fn_name`, {"input": [arguments] or {name: argument}, "output": value}, or Python texts '
        "with asserts, to which `candidate` is `fn_name`; all are run in one job",
    )
    options: dict[Text, Text] | None = Field(
        None,
        description='"echo_last": "1" prints the last expression\'s value; "timeout": seconds below the limit; '
        '"seed": integer for random and numpy.random; of tests: "test_timeout": seconds for each, "tolerance": of '
        'floats, absolute or relative, "stop_on_failure": "1"',
    )

    def name(self) -> str:
        """The sub_id to answer with, always encodable."""
        return (self.sub_id or str(uuid.uuid4())).encode("utf-8", "replace").decode()


class BatchSubmission(BaseModel):
    """Several submissions, answered together and in order."""

    sub_id: Text | None = None
    type: Literal["batch"] = "batch"
    submissions: list[Submission] = Field(min_length=1)


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class TestResult(BaseModel):
    """What came of one test."""

    passed: bool
    error: str | None = Field(description="null if it passed; else what went wrong, and where")
    seconds: float = Field(description="that it took; 0 if it was not run to its end")


class JudgeResult(BaseModel):
    """What came of a submission, without its output."""

    sub_id: str
    success: bool = Field(
        description="run_success, and stdout is as expected if anything was expected, or all tests have passed"
    )
    run_success: bool = Field(
        description="the program ended by itself with exit status 0; tests that fail do not change it"
    )
    cost: float = Field(description="seconds it ran")
    reason: Reason = Field(description='"" whenever the program ran to an end of its own, good or bad')
    retryable: bool = Field(description="the outcome is not the program's fault: ask again, score nothing")
    exception: str | None = Field(description="class of the uncaught Python exception")
    tests: list[TestResult] | None = Field(description="of each test, in order; null if there are none")


class Result(JudgeResult):
    """What came of a submission. Output beyond the limit is cut in the middle."""

    stdout: str
    stderr: str


class BatchResult(BaseModel):
    """The results of a batch, in the order of its submissions."""

    sub_id: str
    results: list[Result]


class JudgeBatchResult(BaseModel):
    """The results of a batch without output, in the order of its submissions."""

    sub_id: str
    results: list[JudgeResult]
