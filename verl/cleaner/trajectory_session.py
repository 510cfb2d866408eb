"""What the agent loop knows of the one trajectory that it is making, beyond verl's `AgentData`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.tool_agent_loop import AgentData

from cleaner.phase import VALIDATE_KEY
from cleaner.saar.config import CreditRow
from cleaner.saar.outcome import ToolOutcome
from cleaner.saar.policy import Reaction
from cleaner.saar.repair import Repair
from cleaner.saar.seeding import derive_seed, draw
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.saar.strategy import Strategy, make_strategy
from cleaner.saar.trajectory import Origin, Piece, Trajectory
from cleaner.turn_calls import TurnCall

# What servers call the seed of one request, where it is not "seed".
_SEED_KEYS = {"sglang": "sampling_seed"}
_LENGTH_KEYS = ("max_tokens", "max_new_tokens")


@dataclass(frozen=True)
class LoopSettings:
    """The group `cleaner` of the run configuration as the agent loop needs it.

    Attributes:
        strategy: what is done about failing calls.
        seed: base of all seeds; None: requests carry no seed, as upstream's.
        record: keep the trajectory's text and repairs in `extra_fields`.
        save_negatives: keep the repaired calls' text with their context, as negative samples.
        credit_rows: what a repair gives to training as samples of their own.
        seed_key: name of the seed among the sampling parameters.
    """

    strategy: Strategy
    seed: int | None
    record: bool
    save_negatives: bool
    credit_rows: frozenset[CreditRow]
    seed_key: str

    @property
    def keeps_repairs(self) -> bool:
        """Whether anybody asks for repairs later; all their tokens twice over are too much to keep for nobody."""
        return self.record or self.save_negatives or bool(self.credit_rows)

    @classmethod
    def from_config(cls, config: Any) -> "LoopSettings":
        """Read `config.cleaner`; without that group nothing is done about failing calls, and requests stay as they are.

        Raises:
            ConfigError: a bad key or value of a strategy.
        """
        group: Mapping[str, Any] = config.get("cleaner") or {}
        negatives: Mapping[str, Any] = group.get("negatives") or {}
        rollout_name = str(config.actor_rollout_ref.rollout.get("name"))
        strategy = make_strategy(group)
        preferences = {CreditRow.FAILING} if negatives.get("dpo", False) else set()
        return cls(
            strategy=strategy,
            seed=group.get("seed"),
            record=bool(group.get("record", False)),
            save_negatives=bool(negatives.get("save", False)),
            credit_rows=strategy.credit_rows | preferences,
            seed_key=_SEED_KEYS.get(rollout_name, "seed"),
        )


@dataclass(frozen=True)
class Checkpoint:
    """The history before a turn: what stays frozen when the turn is repaired."""

    prompt_ids: list[int]
    response_mask: list[int]
    response_logprobs: list[float]
    messages: int
    routed_experts: Any

    @classmethod
    def of(cls, agent_data: AgentData) -> "Checkpoint":
        return cls(
            agent_data.prompt_ids,
            agent_data.response_mask,
            agent_data.response_logprobs,
            len(agent_data.messages),
            agent_data.routed_experts,
        )


class TrajectorySession:
    """State of one trajectory: identity, policy, aligned tokens, statistics, repairs.

    Args:
        number: which try of this trajectory it is, from 0; see `Strategy.samples_again`.
    """

    def __init__(self, settings: LoopSettings, run_kwargs: Mapping[str, Any], number: int = 0) -> None:
        self.settings = settings
        # The worker knows whether this is validation but tells only what is in the batch: see cleaner.phase.
        self.validate = bool(run_kwargs.get(VALIDATE_KEY, False))
        names = ("global_steps", "index", "session_id")
        self._identity: tuple[Any, ...] = (
            self.validate,
            *(_plain(run_kwargs.get(name)) for name in names),
            # The first try has the seeds of a trajectory that is sampled once.
            *((number,) if number else ()),
        )
        self.policy = settings.strategy.turn_policy(validate=self.validate)
        self.statistics = TrajectoryStatistics()
        self.trajectory = Trajectory()
        self.repairs: list[Repair] = []
        self.sampling_params: dict[str, Any] = {}
        self.checkpoint: Checkpoint | None = None
        self.turn_calls: list[TurnCall] = []
        # Whether `turn_calls` know their tokens.
        self.located = False
        self.turn = -1
        # Why the trajectory ended (`cleaner.evaluation.sample_facts`), where anything but the model's answer ended it.
        self.ending: str | None = None
        # Failing turns that stand in the history right before the present turn.
        self._streak = 0
        self._requests = 0

    def begin_turn(self, agent_data: AgentData, sampling_params: dict[str, Any]) -> None:
        """Note the history before the model is asked for the next turn."""
        self.turn += 1
        self.statistics.begin_turn()
        self.checkpoint = Checkpoint.of(agent_data)
        self.sampling_params = sampling_params
        self.turn_calls = []

    def request_params(
        self, sampling_params: Mapping[str, Any], max_tokens: int | None = None
    ) -> dict[str, Any]:
        """Sampling parameters of the next request: a copy, with this request's seed and, if given, a length limit."""
        params = dict(sampling_params)
        if self.settings.seed is not None:
            params[self.settings.seed_key] = derive_seed(
                "request", self.settings.seed, *self._identity, self._requests
            )
        self._requests += 1
        if max_tokens is not None:
            limits = [params.pop(key) for key in _LENGTH_KEYS if params.get(key) is not None]
            params["max_tokens"] = min([max_tokens, *limits])
        return params

    def reaction(self, outcomes: Sequence[ToolOutcome]) -> Reaction:
        """What to do about the present turn; the same however often it is asked for."""
        if not self.policy.active or all(outcome.ok for outcome in outcomes):
            return Reaction.GO_ON
        seed = self.policy.config.seed if self.settings.seed is None else self.settings.seed
        chance = draw("rollback", seed, *self._identity, self.turn)
        return self.policy.reaction(outcomes, chance=chance, streak=self._streak)

    def note_turn(self, failed: bool) -> None:
        """Say whether the present turn, as it stands in the history, ends with a failure."""
        self._streak = self._streak + 1 if failed else 0

    def exclude(self, start: int, spans: Sequence[tuple[int, int]]) -> None:
        """Keep model tokens out of training: the ranges `spans`, counted from token `start`, become `EXCLUDED`."""
        for first, stop in spans:
            first, stop = start + first, start + stop
            logprobs = self.trajectory.logprobs
            kept = None if logprobs is None else logprobs[first:stop]
            self.trajectory.splice(
                first, stop, [Piece(self.trajectory.ids[first:stop], Origin.EXCLUDED, kept)]
            )

    def follow(self, agent_data: AgentData) -> None:
        """Bring the aligned tokens up to date with what verl's handlers appended to `agent_data`."""
        length = len(agent_data.response_mask)
        ids = agent_data.prompt_ids[len(agent_data.prompt_ids) - length :]
        self.trajectory.adopt(ids, agent_data.response_mask, agent_data.response_logprobs)

    def write_back(self, agent_data: AgentData) -> None:
        """Give `agent_data` the aligned tokens after a splice."""
        prompt_length = len(agent_data.prompt_ids) - len(agent_data.response_mask)
        agent_data.prompt_ids = agent_data.prompt_ids[:prompt_length] + self.trajectory.ids
        agent_data.response_mask = list(self.trajectory.mask)
        agent_data.response_logprobs = list(self.trajectory.logprobs or [])

    def origin(self, output: AgentLoopOutput) -> list[int]:
        """Origin of the response tokens of the finished trajectory."""
        mask = output.response_mask
        if len(self.trajectory):
            # Something was rolled back.
            self.trajectory.adopt(output.response_ids[: len(mask)], mask, output.response_logprobs)
            origin = list(self.trajectory.origin)
        else:
            origin = list(mask)
        # Upstream returns the prompt as the response of a trajectory in which the model said nothing at all.
        return origin + [0] * (len(output.response_ids) - len(origin))


def _plain(value: Any) -> Any:
    """Numbers arrive as tensors or numpy scalars, depending on verl's path; equal numbers must give equal seeds."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
