"""The record of one repair: what was sampled, why it failed, what was tried, what is trained.

It keeps token ids, log-probabilities and the position of the frozen prefix, so that later uses of a failing call (as a
negative sample in its own context, say) need nothing else.
"""

from dataclasses import dataclass

from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.policy import Decision, Ending


@dataclass(frozen=True)
class SampledTurn:
    """An assistant turn as it was sampled, and what its calls did.

    Attributes:
        ids: its tokens.
        logprobs: of these tokens in their context; None where the server gives none.
        call_start: index of the token with which its first call starts; None if it has no call that could be located.
        code: the code argument of the calls that matter here (the failing ones; the accepted ones), None without one.
        outcome: of the first failing call, else of the last call; None where there was no call.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    call_start: int | None
    code: str | None
    outcome: ToolOutcome | None


@dataclass(frozen=True)
class AttemptRecord:
    """One correction that was tried; `similarity` only for the accepted one."""

    turn: SampledTurn
    similarity: float | None = None


@dataclass(frozen=True)
class Repair:
    """What was done about one failing turn.

    Attributes:
        turn: which assistant turn of the trajectory, from 0.
        start: number of response tokens before the turn: the frozen prefix, which nothing changes any more.
        decision: shallow, deep or exhausted; `ending` says why it was exhausted.
        similarity: of the failed to the accepted code, None if exhausted; an upper bound if not `similarity_exact`.
        accepted: index into `attempts`, None if exhausted.
        failed: the turn that failed.
        attempts: the corrections in the order in which they were sampled.
        after: tokens of the turn that is trained.
        discarded_tokens: tokens sampled for this turn, the first time or by a correction, that are not in `after`.
        removed_tokens: by how many tokens, observations included, the history is shorter than it would be unedited.
        lookahead_tokens: tokens sampled by corrections.
        seconds: wall time of the look-ahead.
    """

    turn: int
    start: int
    decision: Decision
    similarity: float | None
    similarity_exact: bool
    accepted: int | None
    ending: Ending | None
    failed: SampledTurn
    attempts: tuple[AttemptRecord, ...]
    after: tuple[int, ...]
    discarded_tokens: int
    removed_tokens: int
    lookahead_tokens: int
    seconds: float
