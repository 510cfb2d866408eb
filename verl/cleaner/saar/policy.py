"""The rollback's decisions: whether a turn is rolled back, whether a correction is accepted, how deep the repair is.

Small frozen objects without state; `cleaner.agent_loop` acts on what they say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cleaner.saar.config import SaarConfig
from cleaner.saar.outcome import INFRASTRUCTURE, OK, ToolOutcome


class Decision(StrEnum):
    """What was done about a failing turn."""

    SHALLOW = "shallow"  # reasoning kept, call replaced
    DEEP = "deep"  # whole turn replaced
    EXHAUSTED = "exhausted"  # no correction succeeded: the turn stays as sampled


class Ending(StrEnum):
    """Why a look-ahead ended without a correction."""

    ATTEMPTS = "attempts"  # K of them failed
    ROOM = "room"  # the response length or max_lookahead_tokens is used up
    INFRASTRUCTURE = "infrastructure"  # the tool's service failed under an attempt
    GREEDY = "greedy"  # no call, and greedy sampling would say the same again


@dataclass(frozen=True)
class RollbackPolicy:
    """Decides for one trajectory.

    Attributes:
        config: the settings.
        active: whether this trajectory may be rolled back at all (enabled, and not validation unless asked).
    """

    config: SaarConfig
    active: bool

    @classmethod
    def for_trajectory(cls, config: SaarConfig, *, validate: bool) -> "RollbackPolicy":
        wanted = config.enabled and (config.rollback_in_validation or not validate)
        return cls(config, active=wanted and config.max_retries > 0)

    def failing(self, outcomes: Sequence[ToolOutcome]) -> tuple[int, ...]:
        """Indices of the calls whose failure a rollback is meant for."""
        return tuple(index for index, outcome in enumerate(outcomes) if self._listed(outcome))

    def triggers(self, outcomes: Sequence[ToolOutcome], chance: float) -> bool:
        """Whether a turn with these outcomes is rolled back.

        Never while the tool's service is at fault for any of them: corrections would only meet the same fault.

        Args:
            chance: this turn's draw in [0, 1), compared with `rollback_probability`.
        """
        if not self.active or any(outcome.status == INFRASTRUCTURE for outcome in outcomes):
            return False
        return chance < self.config.rollback_probability and bool(self.failing(outcomes))

    def accepts(self, outcomes: Sequence[ToolOutcome]) -> bool:
        """Whether an attempt is a success: it made calls, and all of them ran."""
        return bool(outcomes) and all(outcome.status == OK for outcome in outcomes)

    def depth(self, similarity: float) -> Decision:
        """How to repair, from the similarity of the first failed call to the accepted one."""
        return Decision.SHALLOW if similarity >= self.config.gamma else Decision.DEEP

    def _listed(self, outcome: ToolOutcome) -> bool:
        if outcome.ok or outcome.status == INFRASTRUCTURE:
            return False
        names = {outcome.status}
        if outcome.exception:
            names |= {outcome.exception, outcome.exception.rpartition(".")[2]}
        return not names.isdisjoint(self.config.rollback_on)
