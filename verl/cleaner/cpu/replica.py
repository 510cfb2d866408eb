"""Where the rollout server's actor runs, and under which name the training worker finds it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name
from verl.workers.rollout.replica import RolloutReplica

from cleaner.cpu.options import HFServerOptions

logger = logging.getLogger(__name__)


def actor_name(replica_rank: int, name_suffix: str = "", role: str = "") -> str:
    """The Ray name of a server: ``hf_server_<role_><rank><_suffix>``."""
    return f"hf_server_{role}{replica_rank}{name_suffix}"


class HFServerReplica(RolloutReplica):
    """One server process; more replicas serve more training workers.

    Raises:
        ValueError: tensor, pipeline or data parallelism inside a replica is asked for, or an option is wrong.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.world_size != 1:
            raise ValueError(
                "the rollout server hf_server computes in one process: set actor_rollout_ref.rollout."
                "tensor_model_parallel_size, data_parallel_size and pipeline_model_parallel_size to 1"
            )
        self.options = HFServerOptions.from_rollout_config(self.config, get_device_name())

    @property
    def awaits_weights(self) -> bool:
        """Whether a trainer sends this server's weights; reward and teacher models keep those they were loaded with."""
        return not (self.is_reward_model or self.is_teacher_model)

    async def launch_servers(self) -> None:
        """Start the actor next to the training worker it serves, on the same accelerator if there is one."""
        from cleaner.cpu.server import HFServer

        node_id, environment = await self._placement()
        role = "reward_" if self.is_reward_model else "teacher_" if self.is_teacher_model else ""
        handle = (
            ray.remote(HFServer)
            .options(
                name=actor_name(self.replica_rank, self.name_suffix, role),
                num_cpus=0,  # as with verl's other engines, the training worker's share is used in turn
                max_concurrency=self.max_concurrency,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node_id, soft=False),
                runtime_env={"env_vars": environment},
            )
            .remote(
                config=self.config,
                model_config=self.model_config,
                options=self.options,
                replica_rank=self.replica_rank,
                awaits_weights=self.awaits_weights,
            )
        )
        self.servers = [handle]
        self._server_handle = handle
        self._server_address = await handle.get_server_address.remote()

    async def _placement(self) -> tuple[str, dict[str, str]]:
        """Node id of the first worker (or this process), and the environment that shows the actor that one's device."""
        platform = get_platform()
        resource = platform.ray_resource_name()
        if not self.workers:
            return ray.get_runtime_context().get_node_id(), {}

        def where(_: Any) -> tuple[str, list[str]]:
            context = ray.get_runtime_context()
            return context.get_node_id(), context.get_accelerator_ids().get(resource, [])

        node_id, devices = await self.workers[0].__ray_call__.remote(where)
        if self.options.device == "cpu" or not devices:
            return node_id, {}
        environment = dict.fromkeys(platform.ray_noset_envvars(), "1")
        environment |= {key: str(value) for key, value in platform.rollout_env_vars().items()}
        environment[platform.visible_devices_envvar()] = str(devices[0])
        return node_id, environment

    async def abort_all_requests(self, reject_request: bool = False) -> dict[str, Any]:
        """See :meth:`cleaner.cpu.server.HFServer.abort_all_requests`; the counts of all servers together."""
        results = await asyncio.gather(
            *[server.abort_all_requests.remote(reject_request=reject_request) for server in self.servers]
        )
        return {"aborted_count": sum(r["aborted_count"] for r in results), "request_ids": []}
