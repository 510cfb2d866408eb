"""The record of one rolled-back turn: what was sampled, why it failed, what was tried, what is trained.

It keeps token ids, log-probabilities and the position of the frozen prefix, so that later uses of a failing call (as a
negative sample in its own context, say) need nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cleaner.saar.graft import Graft
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.policy import Decision, Ending


@dataclass(frozen=True)
class SampledTurn:
    """An assistant turn as it was sampled, and what its calls did.

    Attributes:
        ids: its tokens.
        logprobs: of these tokens in their context; None where the server gives none.
        call_start: index of the token with which its first call starts; None if it has no call that could be located.
        call_spans: token ranges of the calls that matter here; where all of the turn's do, one from the first call to
            the end of the turn. Empty where they cannot be told from the other calls.
        code: the code argument of the calls that matter here (the failing ones; the accepted ones), None without one.
        outcome: of the first failing call, else of the last call; None where there was no call.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    call_start: int | None
    code: str | None
    outcome: ToolOutcome | None
    call_spans: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class AttemptRecord:
    """One correction that was tried; `similarity` to the failed call where it was computed: of the accepted one, and of
    all that succeeded side by side."""

    turn: SampledTurn
    similarity: float | None = None


@dataclass(frozen=True)
class AcceptedTurn:
    """A repaired turn in the clean context: its tokens, where its first grafted call starts, and how deep it is."""

    ids: Sequence[int]
    call_start: int | None
    depth: Decision


@dataclass(frozen=True)
class Repair:
    """What was done about one failing turn.

    Attributes:
        turn: which assistant turn of the trajectory, from 0.
        start: number of response tokens before the turn: the frozen prefix, which nothing changes any more.
        decision: what became of it; `ending` says why it was exhausted.
        similarity: of the failed to the accepted code, None if exhausted; an upper bound if not `similarity_exact`.
        weight: geometric mean of w over the graft, where it was asked for (`graft_credit: gate`), else None.
        accepted: index into `attempts`, None if exhausted.
        failed: the turn that failed.
        attempts: the corrections in the order in which they were sampled.
        after: tokens of the turn that stands in the history in its place; with a look-ahead that stays in the history,
            of the failed turn.
        graft_call_start: index in `after` of the first token of the grafted call, None where nothing was grafted or the
            call could not be located.
        aside: the repaired turn that would stand in the history, were it edited (`history: sampled`), else None.
        discarded_tokens: tokens sampled for this turn, the first time or by a correction, that are not in the history.
        excluded_tokens: tokens of this turn that stay in the history but are not trained.
        removed_tokens: by how many tokens, observations included, the history is shorter than it would be unedited.
        lookahead_tokens: tokens sampled by corrections.
        seconds: wall time of the look-ahead.
    """

    turn: int
    start: int
    decision: Decision
    similarity: float | None
    similarity_exact: bool
    weight: float | None
    accepted: int | None
    ending: Ending | None
    failed: SampledTurn
    attempts: tuple[AttemptRecord, ...]
    after: tuple[int, ...]
    graft_call_start: int | None
    aside: Graft | None
    discarded_tokens: int
    excluded_tokens: int
    removed_tokens: int
    lookahead_tokens: int
    seconds: float

    @property
    def accepted_turn(self) -> AcceptedTurn | None:
        """What the correction makes of the turn, in the history or aside; None where nothing was grafted."""
        if self.aside is not None:
            return AcceptedTurn(self.aside.ids, self.aside.call_start, self.aside.depth)
        if self.decision not in (Decision.SHALLOW, Decision.DEEP):
            return None
        return AcceptedTurn(self.after, self.graft_call_start, self.decision)
