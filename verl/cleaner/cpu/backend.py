"""Registers CLEANER's rollout server, and the training engines that a machine needs, with verl.

Imported through ``actor_rollout_ref.model.external_lib`` in the task runner, the training workers and the agent-loop
workers. Importing it twice does no harm. The server works on any platform; the engines are for "cpu", and for "cuda"
without flash attention.
"""

from __future__ import annotations

import importlib.util

from verl.plugin.platform import get_platform
from verl.workers.rollout import base as _rollout_base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry

ROLLOUT_NAME = "hf_server"
ADAPTER = "cleaner.cpu.weight_sync.HFServerAdapter"


def _load_replica() -> type[RolloutReplica]:
    from cleaner.cpu.replica import HFServerReplica

    return HFServerReplica


RolloutReplicaRegistry.register(ROLLOUT_NAME, _load_replica)
# verl has no registration call for the adapter in the training worker; this table is what get_rollout_class() reads.
_rollout_base._ROLLOUT_REGISTRY[(ROLLOUT_NAME, "async")] = ADAPTER

if get_platform().device_name == "cpu":
    from cleaner.cpu import engine as _engine  # noqa: F401  (registers by being imported)
elif get_platform().vendor_name == "nvidia" and importlib.util.find_spec("flash_attn") is None:
    from cleaner.cpu import cuda_engine as _cuda_engine  # noqa: F401
