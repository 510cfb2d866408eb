"""What is done about failing calls, at three moments: in a turn, in a finished trajectory, in a finished group.

A strategy decides and has no state; the agent loop asks the first two questions, the trainer the third, and neither
knows which strategy it asks. `make_strategy` builds the one that the configuration names:

- `none`: nothing; GRPO on raw trajectories, the baseline;
- `saar`: failing turns are rolled back and repaired (`cleaner.saar.policy`);
- `retry_trajectory`: a trajectory with a failing call is sampled anew, up to K times; the first clean one is kept;
- `roc`: GRPO-RoC, "resample on correct" (rStar2-Agent, arXiv 2508.20722): more trajectories are sampled than trained;
  of the failures in reward a uniform half stays, of the successes those with fewer tool errors stay more often.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cleaner.saar.config import CreditRow, SaarConfig
from cleaner.saar.policy import NO_ROLLBACK, TurnPolicy
from cleaner.saar.seeding import draw
from cleaner.saar.setting_checks import check_choice, check_int, known_keys, number_in
from cleaner.saar.statistics import TrajectoryStatistics


@dataclass(frozen=True)
class Member:
    """One finished trajectory of a group, as a strategy sees it.

    Attributes:
        reward: its outcome reward.
        statistics: `TrajectoryStatistics.to_dict` of it; empty where its agent loop counts nothing.
    """

    reward: float
    statistics: Mapping[str, Any]


class Strategy(Protocol):
    """See the module's text. All methods are pure."""

    @property
    def graft_credit(self) -> str:
        """How grafted tokens are trained; see `SaarConfig.graft_credit`."""

    @property
    def credit_rows(self) -> frozenset[CreditRow]:
        """What a repair gives to training beside its trajectory."""

    def turn_policy(self, *, validate: bool) -> TurnPolicy:
        """Who decides about the turns of one trajectory."""

    def samples_again(self, tries: Sequence[TrajectoryStatistics], *, validate: bool) -> bool:
        """Whether the whole trajectory is to be sampled once more, after these tries (at least one)."""

    def kept(self, tries: Sequence[TrajectoryStatistics]) -> int:
        """Which of the tries becomes the trajectory."""

    def sampled_per_prompt(self, trained: int) -> int:
        """How many trajectories to sample so that `trained` of them are trained; >= `trained`."""

    def select(self, group: Sequence[Member], trained: int, seed: tuple[object, ...]) -> list[int]:
        """Which of a group are trained: at most `trained` indices, ascending.

        Args:
            seed: parts of the seed of any draw.
        """


@dataclass(frozen=True)
class NoStrategy:
    """The baseline, and what every strategy does where it does nothing of its own."""

    @property
    def graft_credit(self) -> str:
        return "train"

    @property
    def credit_rows(self) -> frozenset[CreditRow]:
        return frozenset()

    def turn_policy(self, *, validate: bool) -> TurnPolicy:
        return NO_ROLLBACK

    def samples_again(self, tries: Sequence[TrajectoryStatistics], *, validate: bool) -> bool:
        return False

    def kept(self, tries: Sequence[TrajectoryStatistics]) -> int:
        return 0

    def sampled_per_prompt(self, trained: int) -> int:
        return trained

    def select(self, group: Sequence[Member], trained: int, seed: tuple[object, ...]) -> list[int]:
        return list(range(len(group)))


@dataclass(frozen=True)
class Saar(NoStrategy):
    """Similarity-aware adaptive rollback."""

    config: SaarConfig = field(default_factory=SaarConfig)

    @property
    def graft_credit(self) -> str:
        return self.config.graft_credit

    @property
    def credit_rows(self) -> frozenset[CreditRow]:
        return self.config.credit_rows

    def turn_policy(self, *, validate: bool) -> TurnPolicy:
        wanted = self.config.rollback_in_validation or not validate
        return TurnPolicy(self.config, active=wanted and self.config.max_retries > 0)


@dataclass(frozen=True)
class RetryTrajectory(NoStrategy):
    """Sample a trajectory anew while a call in it failed; keep the first clean one, else the first.

    Attributes:
        max_retries: K >= 0, further tries.
    """

    max_retries: int = 3

    def __post_init__(self) -> None:
        check_int("cleaner.retry_trajectory.max_retries", self.max_retries, 0)

    def samples_again(self, tries: Sequence[TrajectoryStatistics], *, validate: bool) -> bool:
        return not validate and len(tries) <= self.max_retries and bool(tries[-1].failures)

    def kept(self, tries: Sequence[TrajectoryStatistics]) -> int:
        clean = (i for i, counts in enumerate(tries) if not counts.failures and not counts.infrastructure)
        return next(clean, 0)


@dataclass(frozen=True)
class ResampleOnCorrect(NoStrategy):
    """GRPO-RoC: sample `oversample` x n, train n.

    Both classes keep half of their members, as nearly as n allows. A success with error share e (failed calls of all
    its calls; 0.5 for a trajectory without a call, arXiv 2508.20722, section 3) is kept with a probability that falls
    with e: without replacement, weight 1 - e, and not less than `least_weight`. The paper's second penalty, for answer
    tags at the wrong place, belongs to its own output format and is left out.

    Attributes:
        oversample: >= 1; n is multiplied by it and rounded.
        least_weight: in (0, 1].
    """

    oversample: float = 2.0
    least_weight: float = 0.05

    def __post_init__(self) -> None:
        number_in("cleaner.roc.oversample", self.oversample, 1.0)
        number_in("cleaner.roc.least_weight", self.least_weight, 0.0, 1.0, above=True)

    def sampled_per_prompt(self, trained: int) -> int:
        return max(trained, round(trained * self.oversample))

    def select(self, group: Sequence[Member], trained: int, seed: tuple[object, ...]) -> list[int]:
        if len(group) <= trained:
            return list(range(len(group)))
        right = [i for i, member in enumerate(group) if member.reward > 0]
        wrong = [i for i, member in enumerate(group) if member.reward <= 0]
        places = round(trained * len(right) / len(group))
        weights = {i: max(1.0 - _error_share(group[i].statistics), self.least_weight) for i in right}

        def key(i: int) -> float:
            # Efraimidis and Spirakis (2006): the largest u^(1/w) are a weighted sample without replacement.
            return float(draw("roc", *seed, i) ** (1.0 / weights.get(i, 1.0)))

        kept = sorted(right, key=key, reverse=True)[:places]
        return sorted(kept + sorted(wrong, key=key, reverse=True)[: trained - len(kept)])


def _error_share(statistics: Mapping[str, Any]) -> float:
    calls = statistics.get("calls", 0)
    return 1.0 - statistics["calls_ok"] / calls if calls else 0.5


def _roc(group: Mapping[str, Any]) -> Strategy:
    return ResampleOnCorrect(**known_keys(ResampleOnCorrect, "cleaner.roc", group.get("roc")))


def _retry(group: Mapping[str, Any]) -> Strategy:
    path = "cleaner.retry_trajectory"
    return RetryTrajectory(**known_keys(RetryTrajectory, path, group.get("retry_trajectory")))


_MAKERS: dict[str, Callable[[Mapping[str, Any]], Strategy]] = {
    "none": lambda group: NoStrategy(),
    "saar": lambda group: Saar(SaarConfig.from_mapping(group.get("saar"))),
    "retry_trajectory": _retry,
    "roc": _roc,
}
STRATEGIES = tuple(_MAKERS)


def make_strategy(group: Mapping[str, Any]) -> Strategy:
    """The strategy that `strategy` in the group `cleaner` of the run configuration names, with its own settings.

    The settings of all strategies are checked, also of those that are not chosen.

    Raises:
        ConfigError: names the key, the bad value and what would be right.
    """
    name = group.get("strategy", "none")
    check_choice("cleaner.strategy", name, STRATEGIES)
    made = {key: make(group) for key, make in _MAKERS.items()}
    return made[name]
