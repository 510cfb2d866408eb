"""The server's settings are checked before anything starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from verl.workers.config import RolloutConfig

from cleaner.cpu.options import HFServerOptions


def rollout(**config: object) -> RolloutConfig:
    return RolloutConfig(name="hf_server", **config)


def options(**given: object) -> HFServerOptions:
    return HFServerOptions.from_rollout_config(
        rollout(engine_kwargs={"hf_server": given, "vllm": {"x": 1}}), "cpu"
    )


def test_defaults_come_from_verl_and_its_platform():
    found = HFServerOptions.from_rollout_config(rollout(dtype="float64"), "cuda")
    assert (found.torch_dtype, found.device) == (torch.float64, "cuda")
    assert HFServerOptions.from_rollout_config(rollout(dtype="fp16"), "cpu").torch_dtype is torch.float16
    assert (
        HFServerOptions.from_rollout_config(rollout(enable_prefix_caching=False), "cpu").prefix_cache_gib == 0
    )


def test_given_settings_win():
    found = options(dtype="float32", device="cuda:1", num_threads=2, kv_cache_gib=1, prefix_cache_gib=None)
    assert found == replace(
        HFServerOptions(),
        dtype="float32",
        device="cuda:1",
        num_threads=2,
        kv_cache_gib=1,
        prefix_cache_gib=0.5,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtyp": "float32"}, r"hf_server\.dtyp\. Did you mean 'dtype'\? Known keys: dtype, device"),
        ({"dtype": "int8"}, "dtype='int8': must be one of float64, float32, bfloat16, float16"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"num_threads": 0}, r"num_threads=0: must be in \[1, 1024\]"),
        ({"kv_cache_gib": 0}, "kv_cache_gib=0: must be above 0"),
        ({"prefix_cache_gib": -1}, "prefix_cache_gib=-1"),
        ({"weight_bucket_mib": 0}, "weight_bucket_mib=0"),
    ],
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        options(**given)
