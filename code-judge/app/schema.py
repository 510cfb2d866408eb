"""What the service takes and answers over HTTP."""

from __future__ import annotations

import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

Reason = Literal["", "internal_error", "worker_timeout", "queue_timeout", "invalid_input"]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    return value


# Any JSON string, lone surrogates too: one bad item must not refuse the whole batch, so it is judged item
# by item.
Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]


class Submission(BaseModel):
    """One program to run, and what it should print. Unknown fields are ignored."""

    sub_id: Text | None = Field(None, description='echoed in the answer; null or "": a new uuid4')
    type: Literal["python", "cpp", "math"] = "python"
    solution: Text = Field(description="the program's text")
    input: Text | None = Field(None, description="its stdin")
    expected_output: Text | None = Field(None, description="`success` needs this on stdout, both stripped")
    options: dict[Text, Text] | None = Field(
        None,
        description='"echo_last": "1" prints the last expression\'s value; "timeout": seconds below the limit; '
        '"seed": integer for random and numpy.random',
    )

    def name(self) -> str:
        """The sub_id to answer with, always encodable."""
        return (self.sub_id or str(uuid.uuid4())).encode("utf-8", "replace").decode()


class BatchSubmission(BaseModel):
    """Several submissions, answered together and in order."""

    sub_id: Text | None = None
    type: Literal["batch"] = "batch"
    submissions: list[Submission] = Field(min_length=1)


class JudgeResult(BaseModel):
    """What came of a submission, without its output."""

    sub_id: str
    success: bool = Field(description="run_success, and stdout is as expected if anything was expected")
    run_success: bool = Field(description="the program ended by itself with exit status 0")
    cost: float = Field(description="seconds it ran")
    reason: Reason = Field(description='"" whenever the program ran to an end of its own, good or bad')
    retryable: bool = Field(description="the outcome is not the program's fault: ask again, score nothing")
    exception: str | None = Field(description="class of the uncaught Python exception")


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
