"""The training worker's side of a weight update: full tensors, in buckets, to the server's actor."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, Iterable
from typing import Any

import ray
import torch
from verl.utils.device import get_device_name
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.utils import ensure_async_iterator

from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.replica import actor_name

logger = logging.getLogger(__name__)


class HFServerAdapter(BaseRollout):
    """Pushes the actor's weights into ``hf_server``. One lives in every training worker; each feeds its own server.

    Raises:
        ValueError: an option is wrong.
    """

    def __init__(
        self,
        config: Any,
        model_config: Any,
        device_mesh: Any,
        *args: Any,
        replica_rank: int = -1,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, model_config, device_mesh)
        rank = int(os.environ["RANK"])
        per_replica = (
            self.config.tensor_model_parallel_size
            * self.config.data_parallel_size
            * self.config.pipeline_model_parallel_size
        )
        self.replica_rank = rank // per_replica if replica_rank == -1 else replica_rank
        self.is_leader_rank = rank % per_replica == 0
        self.options = HFServerOptions.from_rollout_config(self.config, get_device_name())
        self._server: Any = None

    def _leader_server(self) -> Any:
        """The server's handle (it starts after this worker), or None where another worker feeds it."""
        if self._server is None and self.is_leader_rank:
            self._server = ray.get_actor(actor_name(self.replica_rank))
        return self._server

    async def resume(self, tags: list[str]) -> None:
        """Wake the server's ``tags`` ("weights", "kv_cache") after :meth:`release`."""
        server = self._leader_server()
        if server is not None and self.config.free_cache_engine:
            await server.wake_up.remote(tags=tags)

    async def release(self) -> None:
        """Put the server to sleep."""
        server = self._leader_server()
        if server is not None and self.config.free_cache_engine:
            await server.sleep.remote()

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]] | AsyncIterable[tuple[str, torch.Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        peft_config: Any = None,
        **kwargs: Any,
    ) -> None:
        """Replace the server's weights.

        Every rank must call this and read ``weights`` to the end: producing a full tensor is a collective operation.

        Args:
            weights: pairs of name and full tensor on any device.
            wire_format: only ``named_tensors``.
            global_steps: the version that answers will carry.
            peft_config: not None means that ``weights`` are an adapter's.

        Raises:
            NotImplementedError: deltas or adapter weights.
        """
        if wire_format != "named_tensors":
            raise NotImplementedError(f"hf_server takes full tensors, not wire_format={wire_format!r}")
        if peft_config is not None:
            raise NotImplementedError(
                "hf_server cannot apply a LoRA adapter: set actor_rollout_ref.model.lora.merge=True, so that merged "
                "weights are sent"
            )
        server = self._leader_server()
        if server is not None:
            await server.begin_weight_update.remote()
        limit = self.options.weight_bucket_mib * 2**20
        bucket: list[tuple[str, torch.Tensor]] = []
        size = 0
        async for name, tensor in ensure_async_iterator(weights):
            if server is None:
                continue
            tensor = tensor.detach().to("cpu")
            if bucket and size + tensor.nbytes > limit:
                await server.load_weights.remote(bucket)  # the call copies: the tensors may change after it
                bucket, size = [], 0
            bucket.append((name, tensor))
            size += tensor.nbytes
        if server is not None:
            await server.load_weights.remote(bucket)
            await server.finish_weight_update.remote(global_steps)
