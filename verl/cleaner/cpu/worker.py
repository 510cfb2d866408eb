"""verl's workers with the one process group that a CPU run can have.

For the device "cpu" upstream asks torch for the backend ``cpu:gloo,cpu:gloo``, which torch refuses as a duplicate. Its
call does nothing when a group exists, so these classes make ``cpu:gloo`` first. The trainer uses them in place of
upstream's (``role_worker_mapping``) when verl's platform is "cpu".
"""

from __future__ import annotations

import os
from typing import Any

import torch.distributed
from verl.utils.distributed import initialize_global_process_group_ray
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

BACKEND = "cpu:gloo"


def initialize_cpu_process_group() -> None:
    """Join the global process group over gloo, unless this process is in one.

    Rank, world size and meeting point come from ``RANK``, ``WORLD_SIZE`` and ``DIST_INIT_METHOD`` or ``MASTER_ADDR``
    and ``MASTER_PORT``, which verl's Ray workers set.

    Raises:
        RuntimeError: the process already is in a group that cannot carry CPU tensors.
    """
    # The engine registers itself for the device "cpu"; a worker needs it whether or not external_lib was imported.
    import cleaner.cpu.engine  # noqa: F401

    initialize_global_process_group_ray(timeout_second=None, backend=BACKEND)
    backend = str(torch.distributed.get_backend_config())
    if "cpu:gloo" not in backend:
        raise RuntimeError(
            f"rank {os.environ.get('RANK', '0')} is already in a process group over {backend!r}; "
            "a CPU worker needs gloo for CPU tensors"
        )


class CPUTrainingWorker(TrainingWorker):
    """Upstream's training worker (actor, reference, critic) over gloo."""

    def __init__(self, config: Any, **kwargs: Any) -> None:
        initialize_cpu_process_group()
        super().__init__(config, **kwargs)


class CPUActorRolloutRefWorker(ActorRolloutRefWorker):
    """Upstream's hybrid worker, whose actor and reference models are :class:`CPUTrainingWorker`."""

    actor_worker_cls = CPUTrainingWorker
    ref_worker_cls = CPUTrainingWorker
