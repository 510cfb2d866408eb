"""verl's agent-loop workers, with one boundary at which an exception of a trajectory becomes a recorded failure.

In upstream's worker an exception of one trajectory (agent loop, tool, reward, post-processing) marks its whole group
"failure", its cause goes to the worker's log only, and what was already stored of it stays behind. Here it is caught
around the whole trajectory. What is left of the trajectory is taken back, and a failure row takes its place: a minimal
valid row with the tag `failed` and the cause in `extra_fields["failure"]`. The group ends "finished", and its other
trajectories train normally. `cleaner.failures` takes failure rows out of a batch before anything reads it.

Cancellation and the end of the process (`CancelledError`, `KeyboardInterrupt`, `SystemExit`) pass through. A worker
that is killed takes its trajectories with it; the manager tells, for the trainer would wait for them for ever.
"""

import asyncio
import logging
import time
from contextvars import ContextVar
from typing import Any

import ray
import torch
import transfer_queue as tq
from ray.exceptions import RayError
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from cleaner.evaluation.sample_facts import SAMPLE_KEY, sample_facts
from cleaner.failures import FAILED_TAG, FAILURE_FIELD, describe_exception

logger = logging.getLogger(__name__)

# When the trajectory of the current task began.
_began: ContextVar[float | None] = ContextVar("cleaner_trajectory_began", default=None)

_UpstreamWorker = AgentLoopWorkerTQ.__ray_metadata__.modified_class


class CleanerAgentLoopWorker(_UpstreamWorker):  # type: ignore[misc, valid-type]
    """The class behind the Ray actor that makes trajectories."""

    async def live(self) -> None:
        """Never returns: whoever waits for it learns when this process is gone."""
        await asyncio.Event().wait()

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **kwargs: Any,
    ) -> None:
        _began.set(time.perf_counter())
        try:
            await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **kwargs
            )
        except Exception as error:
            await self._put_failure(error, _partition(trajectory["validate"]), kwargs)

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        outputs = output if isinstance(output, list) else [output]
        if not outputs:
            # Upstream would lose the trajectory without a trace.
            raise RuntimeError("the agent loop returned an empty list of outputs")
        if validate:
            length = int(self.config.actor_rollout_ref.rollout.response_length)
            seconds = time.perf_counter() - (_began.get() or time.perf_counter())
            outputs[-1].extra_fields[SAMPLE_KEY] = sample_facts(outputs[-1], kwargs, length, seconds)
        try:
            await super()._agent_loop_postprocess(outputs, validate, **kwargs)
        except Exception:
            # The key of a row that could not be stored is listed all the same, without tags or fields.
            keys = [_key(kwargs, number) for number in range(len(outputs))]
            await tq.async_kv_clear(keys=keys, partition_id=_partition(validate))
            raise

    async def _put_failure(self, error: Exception, partition_id: str, kwargs: dict[str, Any]) -> None:
        """Put the failure row of a trajectory in place.

        Raises:
            Exception: `error` itself where that is impossible; upstream then marks the group "failure".
        """
        key, failure = _key(kwargs, 0), describe_exception(error)
        logger.warning("trajectory %s failed: %s at %s", key, failure["type"], failure["where"])
        row = self._failure_row(failure, kwargs)
        try:
            await tq.async_kv_batch_put(
                keys=[key],
                fields=list_of_dict_to_tensordict([row]),
                tags=[_failure_tag(row, kwargs["global_steps"])],
                partition_id=partition_id,
            )
        except Exception:
            logger.exception("the failure of trajectory %s could not be recorded: %s", key, failure)
            await tq.async_kv_clear(keys=[key], partition_id=partition_id)
            raise error from None

    def _failure_row(self, failure: dict[str, str], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The fields of a row as upstream's post-processing writes them, of one prompt and one response token.

        Nothing of the model is asked here (processor, teacher, reward), for it may be what failed.
        """
        eos = self.tokenizer.eos_token_id
        token = eos if isinstance(eos, int) else 0
        output = AgentLoopOutput(
            prompt_ids=[token],
            response_ids=[token],
            response_mask=[0],
            response_logprobs=[0.0],
            reward_score=0.0,
            num_turns=0,
            metrics=AgentLoopMetrics(),
            mm_processor_kwargs={},
            mm_processor_output=None,
            extra_fields={
                FAILURE_FIELD: failure,
                "reward_extra_info": {},
                "turn_scores": [],
                "tool_rewards": [],
            },
        )
        row: dict[str, Any] = {**output.as_dict(), **kwargs}
        row.pop("multi_modal_data", None)
        row["loss_mask"] = row["response_mask"]
        row["input_ids"] = torch.cat([row["prompts"], row["responses"]])
        row["position_ids"] = torch.arange(2)
        row["multi_modal_inputs"] = {}
        return row


class CleanerAgentLoopManager(AgentLoopManagerTQ):
    """For `actor_rollout_ref.rollout.agent.agent_loop_manager_class`; training and validation both go through it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(CleanerAgentLoopWorker)
        self._lives: list[Any] = []

    async def _init_agent_loop_workers(self) -> None:
        await super()._init_agent_loop_workers()
        self._lives = [worker.live.remote() for worker in self.agent_loop_workers]

    def check_workers(self) -> None:
        """Return at once while all workers live.

        Raises:
            RuntimeError: one is gone, and with it what it was sampling; its cause is Ray's account of it.
        """
        gone, _ = ray.wait(self._lives, timeout=0)
        if gone:
            try:
                ray.get(gone[0])
            except RayError as error:
                raise RuntimeError(
                    f"agent-loop worker {self._lives.index(gone[0])} is gone, and with it the trajectories that it was "
                    "sampling. trainer.resume_mode=auto goes on from the last checkpoint; if memory ran out (Ray says "
                    "so above), take smaller micro-batches or fewer trajectories at a time."
                ) from error


def _partition(validate: bool) -> str:
    return "val" if validate else "train"


def _key(kwargs: dict[str, Any], number: int) -> str:
    """The TransferQueue's key of the trajectory's output `number`."""
    return f"{kwargs['uid']}_{kwargs['session_id']}_{number}"


def _failure_tag(row: dict[str, Any], global_steps: int) -> dict[str, Any]:
    """A success's tag and the mark. Which weights it was sampled from is not known; the step stands for them."""
    prompt_length, response_length = row["prompts"].size(0), row["responses"].size(0)
    return {
        "status": "success",
        FAILED_TAG: True,
        "prompt_len": prompt_length,
        "response_len": response_length,
        "seq_len": prompt_length + response_length,
        "global_steps": global_steps,
        "min_global_steps": global_steps,
        "max_global_steps": global_steps,
    }
