"""The response part of a trajectory: four aligned sequences, and the one operation that edits them.

Element i of `ids`, `mask`, `logprobs` and `origin` describe the same token, after every operation:

- `ids`: token ids, exactly as sampled or as merged by verl's Continuous Token builder; never re-tokenised;
- `mask`: 1 where the model sampled the token and it is trained (origin `SAMPLED` or `GRAFTED`), else 0;
- `logprobs`: log-probability of the token in the context in which it was really sampled, 0.0 for observations;
  None as a whole where the server gives none;
- `origin`: see `Origin`. Together with the log-probability this is what off-policy corrections of grafts need.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from cleaner.errors import AlignmentError


class Origin(IntEnum):
    """Where a token comes from."""

    OBSERVATION = 0  # tool messages and template tokens
    SAMPLED = 1  # sampled by the model in this very context
    GRAFTED = 2  # sampled by the model in a look-ahead context, and moved here
    EXCLUDED = 3  # sampled by the model in this very context, but kept out of training

    @property
    def trained(self) -> bool:
        return self in (Origin.SAMPLED, Origin.GRAFTED)


@dataclass(frozen=True)
class Piece:
    """A run of tokens of one origin, ready to be spliced in.

    Attributes:
        ids: token ids, (n,).
        origin: of all of them; the mask follows from it.
        logprobs: (n,), or None (an observation, or a server without log-probabilities).
    """

    ids: Sequence[int]
    origin: Origin
    logprobs: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and len(self.logprobs) != len(self.ids):
            raise AlignmentError(f"{len(self.ids)} tokens with {len(self.logprobs)} log-probabilities")


class Trajectory:
    """Response tokens of one trajectory. Read the four lists freely; change them through `splice` only."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] | None = None
        self.origin: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def splice(self, start: int, stop: int, pieces: Iterable[Piece]) -> None:
        """Replace tokens [start, stop) by `pieces`, in all four sequences at once.

        Raises:
            AlignmentError: [start, stop) is not a range of the trajectory, or only one of trajectory and pieces has
                log-probabilities. Nothing is changed then.
        """
        if not 0 <= start <= stop <= len(self.ids):
            raise AlignmentError(f"cannot splice [{start}, {stop}) of {len(self.ids)} tokens")
        pieces = [piece for piece in pieces if len(piece.ids)]
        # Any origin but OBSERVATION, which is 0.
        kept = any(self.origin[:start]) or any(self.origin[stop:])
        logprobs = self._spliced_logprobs(start, stop, pieces, has_model_tokens=kept)
        ids: list[int] = []
        mask: list[int] = []
        origin: list[int] = []
        for piece in pieces:
            ids += piece.ids
            mask += [int(piece.origin.trained)] * len(piece.ids)
            origin += [int(piece.origin)] * len(piece.ids)
        self.ids[start:stop], self.mask[start:stop], self.origin[start:stop] = ids, mask, origin
        self.logprobs = logprobs

    def _spliced_logprobs(
        self, start: int, stop: int, pieces: list[Piece], *, has_model_tokens: bool
    ) -> list[float] | None:
        given = {piece.logprobs is not None for piece in pieces if piece.origin != Origin.OBSERVATION}
        if has_model_tokens:
            given.add(self.logprobs is not None)
        if len(given) > 1:
            raise AlignmentError("some of the model's tokens have log-probabilities and some have none")
        if given == {False} or (not given and self.logprobs is None):
            return None
        middle: list[float] = []
        for piece in pieces:
            middle += piece.logprobs or [0.0] * len(piece.ids)
        # Before the first model token there are only observations, if anything.
        old = self.logprobs if self.logprobs is not None else [0.0] * len(self.ids)
        return old[:start] + middle + old[stop:]

    def adopt(self, ids: Sequence[int], mask: Sequence[int], logprobs: Sequence[float] | None) -> None:
        """Follow an edit that verl's builder made at the end: tokens appended, perhaps boundary tokens trimmed before.

        What is new is `SAMPLED` where its mask is 1, else `OBSERVATION`.

        Args:
            ids, mask: the whole response after the edit.
            logprobs: likewise, or None or empty where there are none.

        Raises:
            AlignmentError: the three differ in length.
        """
        if len(ids) != len(mask) or (logprobs and len(logprobs) != len(ids)):
            raise AlignmentError(
                f"{len(ids)} tokens, {len(mask)} masks, {len(logprobs or ())} log-probabilities"
            )
        ids, mask = list(ids), list(mask)
        same = self._common_prefix(ids, mask)
        pieces = []
        position = same
        while position < len(ids):
            try:
                end = mask.index(0 if mask[position] else 1, position)
            except ValueError:
                end = len(ids)
            origin = Origin.SAMPLED if mask[position] else Origin.OBSERVATION
            pieces.append(Piece(ids[position:end], origin, logprobs[position:end] if logprobs else None))
            position = end
        self.splice(same, len(self.ids), pieces)

    def _common_prefix(self, ids: list[int], mask: list[int]) -> int:
        length = len(self.ids)
        if ids[:length] == self.ids and mask[:length] == self.mask:
            return length
        pairs = zip(self.ids, self.mask, ids, mask, strict=False)
        return next((i for i, (a, b, c, d) in enumerate(pairs) if a != c or b != d), min(length, len(ids)))
