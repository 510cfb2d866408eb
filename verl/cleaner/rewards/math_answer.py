r"""Final answers: is the last `\boxed{}` of the last turn the right one?

The strict rule compares text, and so did the original. The other one asks math-verify what text alone can't decide,
in code-judge: reading a formula and simplifying it can take for ever (`9^{9^{9^9}}`), and there it has a deadline, a
memory limit, and a process of its own that can be killed.
"""

from __future__ import annotations

from cleaner.rewards.letters import letter_of
from cleaner.rewards.math_text import MOST_CHARS, settled, tidied, with_imaginary_unit
from cleaner.rewards.response import last_boxed, last_turn
from cleaner.rewards.settings import RewardSettings
from cleaner.rewards.verdict import RIGHT, WRONG, Verdict
from code_judge.client import JudgeClient, JudgeUnavailable, final_answer, shared_client

_STRICT_CHARS = 100
_INVALID, _TIMEOUT = "invalid_input", "worker_timeout"
# Judges that have compared a formula: they have math-verify.
_able: set[str] = set()


async def score_answer(response: str, truth: str, settings: RewardSettings) -> Verdict:
    """Score a final answer 1 or -1.

    Raises:
        JudgeUnavailable: the judge gave no verdict, or it can't compare formulas.
    """
    if settings.math_rule == "strict":
        boxed = last_boxed(response[-_STRICT_CHARS:])
        return _verdict(boxed == truth, boxed)
    boxed = last_boxed(last_turn(response))
    if boxed is None or not boxed.strip():
        return _verdict(False, None)
    if len(boxed) > MOST_CHARS:
        return _verdict(False, boxed[:MOST_CHARS], "too_long")
    answer, right = tidied(boxed), tidied(_unboxed(truth))
    equal = settled(answer, right)
    if equal is not None:
        return _verdict(equal, boxed)
    return await _judged(boxed, answer, right, settings)


def score_letter(response: str, letter: str) -> Verdict:
    """Score a choice 1 or -1."""
    boxed = last_boxed(last_turn(response))
    if boxed is None or not boxed.strip():
        return _verdict(False, None, kind="letter")
    found = letter_of(boxed)
    return _verdict(found == letter, found or boxed[:MOST_CHARS], kind="letter")


async def _judged(boxed: str, answer: str, truth: str, settings: RewardSettings) -> Verdict:
    judge = shared_client(settings.judge())
    answer, truth = with_imaginary_unit(answer, truth)
    # A lone surrogate is nothing that can be sent as text.
    question = final_answer(answer.encode("utf-8", "replace").decode(), truth)
    if settings.timeout_s is not None:
        question["options"] = {"timeout": repr(float(settings.timeout_s))}
    result = await judge.judge(question)
    seconds = result["cost"]
    if result["reason"] == _INVALID:
        # The right answer is prose that math-verify makes nothing of, and the text is another. Or the judge lacks
        # math-verify, and then it says the same of everything.
        await _must_compare(judge, settings)
    note = "timeout" if result["reason"] == _TIMEOUT else ""
    return _verdict(result["success"], boxed, note, seconds)


async def _must_compare(judge: JudgeClient, settings: RewardSettings) -> None:
    url = settings.judge().url
    if url not in _able:
        if not (await judge.judge(final_answer("x+1", "1+x")))["success"]:
            raise JudgeUnavailable(
                f"{url} does not compare formulas: install 'math-verify[antlr4_9_3]' where its workers run"
            )
        _able.add(url)


def _unboxed(truth: str) -> str:
    boxed = last_boxed(truth)
    return truth if boxed is None else boxed


def _verdict(
    right: bool, pred: str | None, note: str = "", seconds: float = 0.0, kind: str = "math"
) -> Verdict:
    if pred is None:
        note = "no_answer"
    return Verdict(RIGHT if right else WRONG, right, pred or "", kind, note, judge_seconds=seconds)
