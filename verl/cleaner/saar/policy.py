"""The rollback's decisions: what to do about a turn, whether a correction is accepted, how deep the repair is.

Small frozen objects without state; `cleaner.agent_loop` acts on what they say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cleaner.saar.config import SaarConfig
from cleaner.saar.outcome import INFRASTRUCTURE, OK, ToolOutcome


class Reaction(StrEnum):
    """What is done about a turn that was just run."""

    GO_ON = "go_on"  # nothing: no failure that a rollback is meant for
    TOLERATE = "tolerate"  # the model is shown its error and may correct itself in the open
    ROLL_BACK = "roll_back"  # look ahead for a correction


class Decision(StrEnum):
    """What became of a turn that was rolled back."""

    SHALLOW = "shallow"  # reasoning kept, call replaced
    DEEP = "deep"  # whole turn replaced
    KEPT = "kept"  # a correction succeeded, but the look-ahead stays as sampled (a closed gate, a sampled history)
    EXHAUSTED = "exhausted"  # no correction succeeded


class Ending(StrEnum):
    """Why a look-ahead ended without a correction."""

    ATTEMPTS = "attempts"  # K of them failed
    ROOM = "room"  # the response length or max_lookahead_tokens is used up
    TURNS = "turns"  # corrections that stay in the history are turns, and no more of these are allowed
    INFRASTRUCTURE = "infrastructure"  # the tool's service failed under an attempt
    GREEDY = "greedy"  # no call, and greedy sampling would say the same again


@dataclass(frozen=True)
class TurnPolicy:
    """Decides for the turns of one trajectory.

    Attributes:
        config: the settings.
        active: whether this trajectory may be rolled back at all.
    """

    config: SaarConfig
    active: bool

    def failing(self, outcomes: Sequence[ToolOutcome]) -> tuple[int, ...]:
        """Indices of the calls whose failure a rollback is meant for."""
        return tuple(index for index, outcome in enumerate(outcomes) if self._listed(outcome))

    def reaction(self, outcomes: Sequence[ToolOutcome], *, chance: float, streak: int) -> Reaction:
        """What to do about a turn with these outcomes.

        Nothing while the tool's service is at fault for any of them: corrections would only meet the same fault.

        Args:
            chance: this turn's draw in [0, 1), compared with `rollback_probability`.
            streak: failing turns that stand in the history right before this one.
        """
        if not self.active or any(outcome.status == INFRASTRUCTURE for outcome in outcomes):
            return Reaction.GO_ON
        if chance >= self.config.rollback_probability or not self.failing(outcomes):
            return Reaction.GO_ON
        return Reaction.ROLL_BACK if streak >= self.config.tolerance else Reaction.TOLERATE

    def accepts(self, outcomes: Sequence[ToolOutcome]) -> bool:
        """Whether an attempt is a success: it made calls, and all of them ran."""
        return bool(outcomes) and all(outcome.status == OK for outcome in outcomes)

    def depth(self, similarity: float) -> Decision:
        """How to repair, from the similarity of the first failed call to the accepted one."""
        return Decision.SHALLOW if similarity >= self.config.gamma else Decision.DEEP

    @property
    def gated(self) -> bool:
        """Whether a graft must be likely enough in the clean context."""
        return self.config.graft_credit == "gate"

    @property
    def edits(self) -> bool:
        """Whether a repaired turn takes the failing one's place in the history."""
        return self.config.history == "edited"

    def lets_through(self, weight: float) -> bool:
        """Whether a graft whose geometric mean of w is `weight` passes the gate."""
        return weight >= self.config.gate_threshold

    def _listed(self, outcome: ToolOutcome) -> bool:
        if outcome.ok or outcome.status == INFRASTRUCTURE:
            return False
        names = {outcome.status}
        if outcome.exception:
            names |= {outcome.exception, outcome.exception.rpartition(".")[2]}
        return not names.isdisjoint(self.config.rollback_on)


NO_ROLLBACK = TurnPolicy(SaarConfig(), active=False)
