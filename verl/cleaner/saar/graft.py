"""How a correction's calls come into the turn that failed: the pieces that replace the turn's tokens.

One call in a turn, the usual case: shallow keeps the turn's reasoning and takes the correction from its call on; deep
takes the whole correction. Several calls: those that succeeded keep their tokens (and their results), each failing one
gets its counterpart from the correction, which must therefore hold either as many calls as failed, or as many as the
turn has. Where all calls of the turn failed, the correction may hold any number.

A call that is kept behind a replaced one also keeps the log-probabilities of the context in which it was sampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cleaner.saar.policy import Decision
from cleaner.saar.trajectory import Origin, Piece


@dataclass(frozen=True)
class CallSpan:
    """Tokens [start, stop) of one call; `lead` and `tail` are what its first and last token hold beyond the markers."""

    start: int
    stop: int
    lead: bytes = b""
    tail: bytes = b""

    def fits(self, other: "CallSpan") -> bool:
        """Whether the tokens of `other` can stand here without changing the text around."""
        return self.lead == other.lead and self.tail == other.tail


@dataclass(frozen=True)
class TurnTokens:
    """A sampled turn: its tokens, their log-probabilities (None without), and where its calls are.

    `spans` has one entry per call that counts, in order; None where the call could not be located, equal entries where
    calls share a region.
    """

    ids: Sequence[int]
    logprobs: Sequence[float] | None
    spans: Sequence[CallSpan | None]

    def piece(self, start: int, stop: int, origin: Origin) -> Piece:
        logprobs = None if self.logprobs is None else self.logprobs[start:stop]
        return Piece(self.ids[start:stop], origin, logprobs)

    @property
    def first_span(self) -> CallSpan | None:
        return self.spans[0] if self.spans else None

    def separable(self) -> bool:
        """Whether every call has tokens of its own."""
        return None not in self.spans and len(set(self.spans)) == len(self.spans)


@dataclass(frozen=True)
class Graft:
    """A possible repair: `pieces` make the new turn.

    Attributes:
        depth: shallow or deep.
        sources: one entry per call of the new turn: ("turn", i) keeps the turn's call i and its result,
            ("attempt", j) takes the correction's.
        call_start: index among the new turn's tokens of the first grafted call; None where it was not located.
    """

    depth: Decision
    pieces: tuple[Piece, ...]
    sources: tuple[tuple[str, int], ...]
    call_start: int | None

    @property
    def ids(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.ids]


def counterparts(
    calls: int, failing: Sequence[int], attempt_calls: int
) -> tuple[tuple[str, int], ...] | None:
    """Which call comes from where in the repaired turn (see `Graft.sources`); None if the correction does not cover."""
    if len(failing) == calls:
        return tuple(("attempt", j) for j in range(attempt_calls)) if attempt_calls else None
    if attempt_calls == len(failing):
        replacement = {i: j for j, i in enumerate(failing)}
    elif attempt_calls == calls:
        replacement = {i: i for i in failing}
    else:
        return None
    return tuple(("attempt", replacement[i]) if i in replacement else ("turn", i) for i in range(calls))


def grafts(turn: TurnTokens, failing: Sequence[int], attempt: TurnTokens, wanted: Decision) -> list[Graft]:
    """Possible repairs, best first: the wanted depth, and deep ones to fall back on if its tokens do not fit.

    The caller must check that the new turn really parses to the calls of `sources`: reasoning that mentions a marker
    can swallow a graft. Only the last resort, the correction as it was sampled, needs no check.
    """
    calls = len(turn.spans)
    sources = counterparts(calls, failing, len(attempt.spans))
    if sources is None:
        return []
    found: list[Graft] = []
    whole = len(failing) == calls
    if not whole and turn.separable() and attempt.separable():
        depths = [Decision.SHALLOW, Decision.DEEP] if wanted == Decision.SHALLOW else [Decision.DEEP]
        found += [
            graft for depth in depths if (graft := _call_by_call(turn, attempt, sources, depth)) is not None
        ]
    if whole and wanted == Decision.SHALLOW:
        old, new = turn.first_span, attempt.first_span
        if old is not None and new is not None and old.lead == new.lead:
            kept = turn.piece(0, old.start, Origin.SAMPLED)
            taken = attempt.piece(new.start, len(attempt.ids), Origin.GRAFTED)
            found.append(Graft(Decision.SHALLOW, (kept, taken), sources, old.start))
    if whole or len(attempt.spans) == calls:
        everything = attempt.piece(0, len(attempt.ids), Origin.GRAFTED)
        first = attempt.first_span
        every_call = tuple(("attempt", j) for j in range(len(attempt.spans)))
        found.append(Graft(Decision.DEEP, (everything,), every_call, None if first is None else first.start))
    return found


def _call_by_call(
    turn: TurnTokens, attempt: TurnTokens, sources: Sequence[tuple[str, int]], depth: Decision
) -> Graft | None:
    spans = [span for span in turn.spans if span is not None]
    others = [span for span in attempt.spans if span is not None]
    position = 0
    pieces: list[Piece] = []
    call_start = None
    if depth == Decision.DEEP:
        if spans[0].lead != others[0].lead:
            return None
        pieces.append(attempt.piece(0, others[0].start, Origin.GRAFTED))
        position = spans[0].start
    for span, (origin, index) in zip(spans, sources, strict=True):
        if origin == "turn":
            continue
        if not span.fits(others[index]):
            return None
        pieces.append(turn.piece(position, span.start, Origin.SAMPLED))
        call_start = sum(len(p.ids) for p in pieces) if call_start is None else call_start
        pieces.append(attempt.piece(others[index].start, others[index].stop, Origin.GRAFTED))
        position = span.stop
    pieces.append(turn.piece(position, len(turn.ids), Origin.SAMPLED))
    return Graft(depth, tuple(pieces), tuple(sources), call_start)
