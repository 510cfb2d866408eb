"""Every part of verl, transformers and Ray's worker protocol that the CPU layer leans on without a promise.

When one of these fails after an upgrade, the named module of ``cleaner.cpu`` must be looked at.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
import torch
import transformers.cache_utils
import verl
from verl.experimental.teacher_loop import teacher_manager
from verl.plugin.platform import PlatformBase, PlatformRegistry
from verl.utils import distributed
from verl.workers.config import FSDPEngineConfig, HFModelConfig, RolloutConfig
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.rollout import base, llm_server, replica
from verl.workers.rollout.base import BaseRollout, get_rollout_class
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

import cleaner.cpu.engine
from cleaner.cpu import backend
from cleaner.cpu.options import HFServerOptions
from cleaner.cpu.platform import CPUPlatform
from cleaner.cpu.server import HFServer
from cleaner.cpu.weight_sync import HFServerAdapter


def names(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_one_this_layer_was_written_for():
    assert verl.__version__ == "0.9.1"


def test_platform_every_abstract_method_is_defined():
    assert not CPUPlatform.__abstractmethods__
    assert issubclass(CPUPlatform, PlatformBase)
    assert PlatformRegistry.get("cpu") is CPUPlatform


def test_backend_the_adapter_table_and_the_replica_registry_know_the_server():
    assert base._ROLLOUT_REGISTRY[("hf_server", "async")] == backend.ADAPTER
    assert get_rollout_class("hf_server", "async") is HFServerAdapter
    assert RolloutReplicaRegistry.get("hf_server").__name__ == "HFServerReplica"


def test_engine_fsdp_engines_build_their_module_where_it_is_overridden():
    for upstream in (transformer_impl.FSDPEngineWithLMHead, transformer_impl.FSDPEngineWithValueHead):
        assert names(upstream._build_fsdp_module) == ["self", "module"]
        assert names(upstream._build_module) == ["self"]
    source = inspect.getsource(transformer_impl.FSDPEngine._build_fsdp_module)
    assert "self.engine_config.offload_policy or self.engine_config.forward_only" in source
    assert {"forward_only", "offload_policy", "strategy", "model_dtype"} <= set(
        FSDPEngineConfig.__dataclass_fields__
    )
    assert 'attn_implementation="flash_attention_2"' in inspect.getsource(
        verl.utils.model.load_valuehead_model
    )


def test_engine_the_registry_gives_ours_for_cpu_and_upstreams_elsewhere():
    engines = EngineRegistry._engines
    for kind, ours in (
        ("language_model", cleaner.cpu.engine.CPUEngineWithLMHead),
        ("value_model", cleaner.cpu.engine.CPUEngineWithValueHead),
    ):
        for name in ("fsdp", "fsdp2"):
            assert engines[kind][name]["cpu"] is ours
            assert engines[kind][name]["cuda"].__module__ == transformer_impl.__name__


def test_worker_upstream_keeps_a_group_that_exists_and_takes_a_backend():
    assert names(distributed.initialize_global_process_group_ray) == ["timeout_second", "backend"]
    source = inspect.getsource(distributed.initialize_global_process_group_ray)
    assert "if not torch.distributed.is_initialized()" in source
    assert "initialize_global_process_group_ray(timeout_second=None)" in inspect.getsource(
        TrainingWorker.__init__
    )


def test_worker_constructors_and_class_attributes_are_as_subclassed():
    assert names(TrainingWorker.__init__)[:2] == ["self", "config"]
    assert names(ActorRolloutRefWorker.__init__)[:3] == ["self", "config", "role"]
    assert ActorRolloutRefWorker.actor_worker_cls is TrainingWorker is ActorRolloutRefWorker.ref_worker_cls


def test_worker_the_duplicate_backend_still_needs_our_group_first():
    """If torch or verl no longer minds, the worker subclasses can go."""
    with pytest.raises(Exception, match="[Dd]uplicate"):
        torch.distributed.distributed_c10d.BackendConfig("cpu:gloo,cpu:gloo")


def test_replica_what_the_base_class_calls_on_server_actors_exists():
    source = inspect.getsource(RolloutReplica)
    for method in (
        "wake_up", "sleep", "abort_all_requests", "resume_generation", "clear_kv_cache", "release_kv_cache",
        "resume_kv_cache", "start_profile", "stop_profile",
    ):  # fmt: skip
        assert f"server.{method}.remote(" in source
        assert inspect.iscoroutinefunction(getattr(HFServer, method))
    assert RolloutReplica.__abstractmethods__ == {"launch_servers"}
    assert names(RolloutReplica.__init__)[1:5] == ["replica_rank", "config", "model_config", "gpus_per_node"]
    for attribute in (
        "servers",
        "workers",
        "_server_handle",
        "_server_address",
        "is_reward_model",
        "name_suffix",
    ):
        assert f"self.{attribute}" in source


def test_server_what_the_client_sends_is_accepted():
    client = inspect.getsource(llm_server.LLMServerClient.generate)
    accepted = inspect.signature(HFServer.generate)
    for name in ("request_id", "prompt_ids", "sampling_params", "image_data", "video_data"):
        assert f"{name}=" in client and name in accepted.parameters
    for name in ("audio_data", "mm_processor_kwargs"):
        assert name in client and name in accepted.parameters
    assert 'output.extra_fields.get("global_steps")' in client


def test_server_the_client_gives_every_turn_a_fresh_request_id():
    """Hence prefixes are found by their tokens, not by request id."""
    assert "uuid4().hex" in inspect.getsource(llm_server.LLMServerClient._vllm_request_id)


def test_server_the_answer_has_the_fields_that_are_filled():
    assert {"token_ids", "log_probs", "stop_reason", "num_preempted", "extra_fields"} <= set(
        TokenOutput.model_fields
    )
    assert '"completed", "aborted"' in inspect.getsource(replica).replace("'", '"')


def test_server_the_rollout_configuration_has_what_is_read():
    read = (
        "dtype", "prompt_length", "response_length", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
        "enable_prefix_caching", "free_cache_engine", "load_format", "seed", "ignore_eos", "engine_kwargs",
        "tensor_model_parallel_size", "data_parallel_size", "pipeline_model_parallel_size",
    )  # fmt: skip
    assert set(read) <= set(RolloutConfig.__dataclass_fields__)
    assert RolloutConfig(name="hf_server", dtype="float64").dtype == "float64"
    read = ("local_path", "hf_config", "generation_config", "tokenizer", "trust_remote_code")
    assert set(read) <= set(HFModelConfig.__dataclass_fields__)


def test_weight_sync_the_worker_calls_the_adapter_as_it_is_written():
    assert names(BaseRollout.__init__)[:4] == ["self", "config", "model_config", "device_mesh"]
    assert BaseRollout.__abstractmethods__ == {"resume", "update_weights", "release"}
    source = inspect.getsource(ActorRolloutRefWorker.update_weights)
    assert "peft_config=peft_config, base_sync_done=True, global_steps=global_steps" in source
    assert 'rollout.resume(tags=["weights"])' in source and 'rollout.resume(tags=["kv_cache"])' in source


def test_log_probs_verls_actor_divides_the_logits_by_the_temperature_and_truncates_nothing():
    source = inspect.getsource(transformer_impl._scale_logits_by_temperature)
    assert "logits / temperature" in source
    body = inspect.getsource(transformer_impl.FSDPEngineWithLMHead.prepare_model_outputs)
    assert "top_p" not in body and "top_k" not in body.replace("distillation_use_topk", "")


def test_kv_cache_transformers_calls_update_with_states_and_layer():
    assert names(transformers.cache_utils.Cache.update)[:4] == [
        "self",
        "key_states",
        "value_states",
        "layer_idx",
    ]
    assert names(transformers.cache_utils.Cache.get_mask_sizes)[:3] == ["self", "query_length", "layer_idx"]


def test_decoder_transformers_passes_a_mask_of_four_dimensions_through():
    from transformers import masking_utils

    source = inspect.getsource(masking_utils._preprocess_mask_arguments)
    assert "len(attention_mask.shape) == 4" in source


def test_scoring_verls_teacher_reads_the_answer_of_our_server(model_directory):
    """Its own client code, from the parameters that it sends to the tensors that it makes."""
    server = HFServer(
        RolloutConfig(
            name="hf_server", prompt_length=20, response_length=20, load_format="auto", dtype="float64"
        ),
        HFModelConfig(path=str(model_directory)),
        HFServerOptions(dtype="float64"),
    )

    class Client:
        async def generate(self, *, mm_processor_output: Any, **kwargs: Any) -> TokenOutput:
            return await server.generate(**kwargs)

    teacher = object.__new__(teacher_manager.AsyncTeacherLLMServerManager)
    teacher.teacher_model_configs = {"t": SimpleNamespace(inference=SimpleNamespace(temperature=1.0))}
    teacher.teacher_client = {"t": Client()}
    loss = SimpleNamespace(loss_settings=SimpleNamespace(use_topk=False), topk=None)
    teacher.distillation_loss_config = loss
    try:
        ids, log_probs = asyncio.run(teacher.compute_teacher_logprobs_single([5, 6, 7, 8]))
    finally:
        server._loop.close()
    assert ids.tolist() == [[6], [7], [8], [0]]
    assert log_probs.shape == (4, 1) and (log_probs[:3] < 0).all() and log_probs[3] == 0


def test_scoring_the_vllm_server_still_shapes_its_answer_so():
    """The function itself, taken out of a module that imports vllm: entry i is of token i + 1, the last a dummy."""
    path = Path(verl.__file__).parent / "workers/rollout/vllm_rollout/utils.py"
    [function] = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "extract_prompt_logprobs"
    ]
    namespace: dict[str, Any] = {"RequestOutput": Any, "Optional": Optional}
    exec(compile(ast.Module([function], []), str(path), "exec"), namespace)
    given = [None, *({token: SimpleNamespace(logprob=-token / 10, rank=1)} for token in (6, 7))]
    result: dict[str, list] = {}
    namespace["extract_prompt_logprobs"](SimpleNamespace(prompt_logprobs=given), 0, result)
    assert result == {"prompt_ids": [[6], [7], [0]], "prompt_logprobs": [[-0.6], [-0.7], [0.0]]}
