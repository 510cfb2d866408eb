"""What the agent loop knows of the one trajectory that it is making, beyond verl's `AgentData`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl.experimental.agent_loop.tool_agent_loop import AgentData

from cleaner.phase import VALIDATE_KEY
from cleaner.saar.config import SaarConfig
from cleaner.saar.policy import RollbackPolicy
from cleaner.saar.repair import Repair
from cleaner.saar.seeding import derive_seed, draw
from cleaner.saar.statistics import TrajectoryStatistics
from cleaner.saar.trajectory import Trajectory
from cleaner.turn_calls import TurnCall

# What servers call the seed of one request, where it is not "seed".
_SEED_KEYS = {"sglang": "sampling_seed"}
_LENGTH_KEYS = ("max_tokens", "max_new_tokens")


@dataclass(frozen=True)
class LoopSettings:
    """The group `cleaner` of the run configuration as the agent loop needs it.

    Attributes:
        saar: the rollback.
        seed: base of all seeds; None: requests carry no seed, as upstream's.
        record: keep the trajectory's text and repairs in `extra_fields`.
        seed_key: name of the seed among the sampling parameters.
    """

    saar: SaarConfig
    seed: int | None
    record: bool
    seed_key: str

    @classmethod
    def from_config(cls, config: Any) -> "LoopSettings":
        """Read `config.cleaner`; without that group rollback is off and nothing is added to requests.

        Raises:
            ConfigError: a bad key or value in `cleaner.saar`.
        """
        group: Mapping[str, Any] = config.get("cleaner") or {}
        saar = SaarConfig.from_mapping(group.get("saar"))
        rollout_name = str(config.actor_rollout_ref.rollout.get("name"))
        return cls(
            saar, group.get("seed"), bool(group.get("record", False)), _SEED_KEYS.get(rollout_name, "seed")
        )


@dataclass(frozen=True)
class Checkpoint:
    """The history before a turn: what stays frozen when the turn is repaired."""

    prompt_ids: list[int]
    response_mask: list[int]
    messages: int
    routed_experts: Any

    @classmethod
    def of(cls, agent_data: AgentData) -> "Checkpoint":
        return cls(
            agent_data.prompt_ids,
            agent_data.response_mask,
            len(agent_data.messages),
            agent_data.routed_experts,
        )


class TrajectorySession:
    """State of one trajectory: identity, policy, aligned tokens, statistics, repairs."""

    def __init__(self, settings: LoopSettings, run_kwargs: Mapping[str, Any]) -> None:
        self.settings = settings
        # The worker knows whether this is validation but tells only what is in the batch: see cleaner.phase.
        self.validate = bool(run_kwargs.get(VALIDATE_KEY, False))
        names = ("global_steps", "index", "session_id")
        self._identity = (self.validate, *(_plain(run_kwargs.get(name)) for name in names))
        self.policy = RollbackPolicy.for_trajectory(settings.saar, validate=self.validate)
        self.statistics = TrajectoryStatistics()
        self.trajectory = Trajectory()
        self.repairs: list[Repair] = []
        self.sampling_params: dict[str, Any] = {}
        self.checkpoint: Checkpoint | None = None
        self.turn_calls: list[TurnCall] = []
        self.turn = -1
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

    def chance(self) -> float:
        """This turn's draw in [0, 1) against `rollback_probability`; the same however often it is asked for."""
        seed = self.settings.saar.seed if self.settings.seed is None else self.settings.seed
        return draw("rollback", seed, *self._identity, self.turn)

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

    def origin(self, length: int) -> list[int]:
        """Origin of the first `length` response tokens."""
        origin: Sequence[int] = self.trajectory.origin[:length]
        # Upstream returns the prompt as the response of a trajectory in which the model said nothing at all.
        return [int(value) for value in origin] + [0] * (length - len(origin))


def _plain(value: Any) -> Any:
    """Numbers arrive as tensors or numpy scalars, depending on verl's path; equal numbers must give equal seeds."""
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value
