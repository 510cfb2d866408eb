"""Settings of the rollout server: ``actor_rollout_ref.rollout.engine_kwargs.hf_server.<key>``.

Everything else comes from verl's own rollout configuration: ``dtype`` (a default for ours), ``prompt_length``,
``response_length``, ``max_model_len``, ``max_num_seqs``, ``max_num_batched_tokens`` (of which CPU uses at most 1024),
``enable_prefix_caching``, ``free_cache_engine``, ``load_format``, ``seed``, ``ignore_eos``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

ENGINE_KEY = "hf_server"

DTYPES: dict[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_SHORT = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}


@dataclass(frozen=True)
class HFServerOptions:
    """How the rollout server computes.

    Attributes:
        dtype: ``float64``, ``float32``, ``bfloat16`` or ``float16``; default: ``rollout.dtype``. In float64 a sampled
            token and its log-probability do not depend on which other requests are in the batch, so two runs with one
            seed are equal although requests arrive in another order. It costs about twice float32's time.
        device: ``cpu``, ``cuda``, ``cuda:0``, ...; default: the device type of verl's platform.
        num_threads: threads of one operation on CPU. 1 is right for a small model, and wherever other processes want
            the same cores: threads that wait for one another at every small operation then wait for the scheduler.
        kv_cache_gib: memory for the keys and values of running requests, in GiB. It bounds how many run at once.
        prefix_cache_gib: memory for the keys and values of finished requests, in GiB, from which a request that
            extends an earlier one goes on; 0 (or ``rollout.enable_prefix_caching=False``) computes every prompt anew.
        fast_modules: use equivalent, faster forms of normalisation, rotary embedding and attention where the model's
            own are recognised (see ``cleaner.cpu.fast_modules``).
        weight_bucket_mib: how much of the weights one message carries in a weight update, in MiB.
    """

    dtype: str = "float32"
    device: str = "cpu"
    num_threads: int = 1
    kv_cache_gib: float = 4.0
    prefix_cache_gib: float = 0.5
    fast_modules: bool = True
    weight_bucket_mib: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _SHORT.get(self.dtype, self.dtype))
        if self.dtype not in DTYPES:
            raise ValueError(f"{_key('dtype')}={self.dtype!r}: must be one of {', '.join(DTYPES)}")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"{_key('device')}={self.device!r}: {error}") from None
        if not 1 <= self.num_threads <= 1024:
            raise ValueError(f"{_key('num_threads')}={self.num_threads}: must be in [1, 1024]")
        if not self.kv_cache_gib > 0:
            raise ValueError(f"{_key('kv_cache_gib')}={self.kv_cache_gib}: must be above 0")
        if not self.prefix_cache_gib >= 0:
            raise ValueError(f"{_key('prefix_cache_gib')}={self.prefix_cache_gib}: must be 0 or more")
        if self.weight_bucket_mib < 1:
            raise ValueError(f"{_key('weight_bucket_mib')}={self.weight_bucket_mib}: must be at least 1")

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @classmethod
    def from_rollout_config(cls, config: Any, platform_device: str) -> HFServerOptions:
        """Read the options out of verl's rollout configuration.

        Args:
            config: ``verl.workers.config.RolloutConfig`` or anything with its attributes.
            platform_device: device type of verl's platform, the default of ``device``.

        Raises:
            ValueError: unknown key (the text suggests the nearest one) or a value out of range.
        """
        given = (getattr(config, "engine_kwargs", None) or {}).get(ENGINE_KEY) or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"{_key()} must be a mapping, not {type(given).__name__}")
        values = {str(key): value for key, value in given.items() if value is not None}
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown key {_key(key)}.{hint} Known keys: {', '.join(known)}")
        values.setdefault("dtype", str(getattr(config, "dtype", cls.dtype)))
        values.setdefault("device", platform_device)
        if not getattr(config, "enable_prefix_caching", True):
            values["prefix_cache_gib"] = 0.0
        return cls(**values)


def _key(name: str = "") -> str:
    return f"actor_rollout_ref.rollout.engine_kwargs.{ENGINE_KEY}" + (f".{name}" if name else "")
