"""What a reward function says of one response."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RIGHT, WRONG = 1.0, -1.0
"""Scores of an answer; a program's is its share of tests, and `WRONG` where there is no program."""

UNMEASURED = ("tests_passed", "tests_total", "judge_seconds")
"""Details of which no validation metric is made: verl would draw a thousand bootstrap samples of each."""


class GroundTruthError(ValueError):
    """A row's ground truth can't be used; the message says why. No response to it is scored."""


@dataclass(frozen=True)
class Verdict:
    """One response's score and its details. All responses have all fields, so that verl can stack them.

    Attributes:
        score: in [-1, 1], before verl's overlong penalty.
        acc: whether the answer is right; of a program, whether it passes all tests.
        pred: the answer as it was given, "" if there is none; None for programs, among which nobody votes.
        kind: what it was compared with: `math`, `letter`, `stdin`, `calls` or `asserts`.
        note: why it is not right, in a word; "" if that is plain: `no_answer`, `too_long`, `no_program`,
            `not_python`, `timeout`, `crash`.
        tests_passed, tests_total: of a program's tests; None for answers.
        judge_seconds: that programs ran in the judge for this verdict, in sum.
    """

    score: float
    acc: bool
    pred: str | None
    kind: str
    note: str = ""
    tests_passed: int | None = None
    tests_total: int | None = None
    judge_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The fields, for verl: `score` is the reward, everything else a detail."""
        return asdict(self)
