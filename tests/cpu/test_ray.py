"""Replica, server actor and weight sync in a Ray cluster of one machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

import cleaner.cpu.backend  # noqa: F401
from cleaner.cpu.replica import HFServerReplica, actor_name
from cleaner.cpu.weight_sync import HFServerAdapter

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import os

    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    environment = {
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": "cleaner.cpu.plugin",
        "OMP_NUM_THREADS": "1",
    }
    ray.init(
        num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
        runtime_env={"env_vars": environment}, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()


def configs(model_directory: Path, **changes: Any) -> tuple[Any, Any]:
    rollout = {
        "_target_": "verl.workers.config.RolloutConfig", "name": "hf_server", "prompt_length": 60,
        "response_length": 20, "tensor_model_parallel_size": 1, "dtype": "float64", "free_cache_engine": True,
        "engine_kwargs": {"hf_server": {"device": "cpu", "weight_bucket_mib": 1}}, **changes,
    }  # fmt: skip
    model = {
        "_target_": "verl.workers.config.HFModelConfig", "path": str(model_directory),
        "external_lib": "cleaner.cpu.backend", "override_config": {"attn_implementation": "sdpa"},
    }  # fmt: skip
    return OmegaConf.create(rollout), OmegaConf.create(model)


def test_weights_reach_the_server_and_answers_carry_their_version(cluster, model_directory, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    config, model_config = configs(model_directory)
    params = {"temperature": 0.9, "top_p": 1.0, "top_k": -1, "logprobs": True, "seed": 3}

    async def run() -> None:
        replica = HFServerReplica(replica_rank=0, config=config, model_config=model_config, gpus_per_node=1)
        await replica.launch_servers()
        assert ray.get_actor(actor_name(0)) is not None
        assert replica.server_address.startswith("hf_server-0.")
        adapter = HFServerAdapter(config=config, model_config=model_config, device_mesh=None)
        model = AutoModelForCausalLM.from_pretrained(model_directory)
        answers = []
        for version in (4, 5):
            await replica.sleep()
            await adapter.resume(tags=["weights"])
            await adapter.update_weights(
                iter(model.state_dict().items()), global_steps=version, peft_config=None
            )
            await adapter.resume(tags=["kv_cache"])
            answers.append(
                await replica.server_handle.generate.remote(
                    request_id="x",
                    prompt_ids=[5, 6, 7],
                    sampling_params=params,
                    image_data=None,
                    video_data=None,
                )
            )
            with torch.no_grad():
                ids = torch.tensor([[5, 6, 7, *answers[-1].token_ids]])
                logits = model(input_ids=ids).logits[0, 2:-1] / 0.9
                expected = torch.log_softmax(logits, -1).gather(1, ids[0, 3:, None]).squeeze(1)
                found = torch.tensor(answers[-1].log_probs)
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)  # what training may expect
                for parameter in model.parameters():
                    parameter.add_(
                        0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
                    )
        assert [a.extra_fields["global_steps"] for a in answers] == [4, 5]
        assert answers[0].token_ids != answers[1].token_ids
        aborted = await replica.abort_all_requests()
        assert aborted["aborted_count"] == 0
        await replica.resume_generation()
        with pytest.raises(NotImplementedError, match="LoRA adapter"):
            await adapter.update_weights(iter(()), peft_config={"r": 8})
        with pytest.raises(NotImplementedError, match="delta_flush"):
            await adapter.update_weights(iter(()), wire_format="delta_flush")
        await replica.start_profile()
        await replica.stop_profile()
        ray.kill(replica.server_handle)

    asyncio.run(run())


def test_on_a_gpu_the_server_sees_the_card_of_its_training_worker_and_no_other(
    cluster, model_directory, monkeypatch
):
    from verl.plugin.platform import platform_manager
    from verl.plugin.platform.platform_cuda import PlatformCUDA

    class Process:
        def seen(self) -> str | None:
            import os

            return os.environ.get("CUDA_VISIBLE_DEVICES")

    async def run() -> None:
        monkeypatch.setattr(platform_manager, "_current_platform", PlatformCUDA())
        config, model_config = configs(model_directory, engine_kwargs={"hf_server": {}})
        replica = HFServerReplica(replica_rank=0, config=config, model_config=model_config, gpus_per_node=1)
        assert replica.options.device == "cuda"
        # The training worker holds the card as far as Ray is concerned; the server asks Ray for none.
        worker = ray.remote(Process).options(num_gpus=1, num_cpus=0).remote()
        replica.workers = [worker]
        node, environment = await replica._placement()
        assert node == ray.get_runtime_context().get_node_id()
        card = await worker.seen.remote()
        server = ray.remote(Process).options(num_cpus=0, runtime_env={"env_vars": environment}).remote()
        assert card is not None and await server.seen.remote() == card
        for actor in (worker, server):
            ray.kill(actor)

    asyncio.run(run())


def test_a_replica_of_several_processes_is_refused(model_directory):
    config, model_config = configs(model_directory, tensor_model_parallel_size=2)
    with pytest.raises(ValueError, match="tensor_model_parallel_size"):
        HFServerReplica(replica_rank=0, config=config, model_config=model_config, gpus_per_node=2)


def test_a_wrong_option_is_refused_before_the_server_starts(model_directory):
    config, model_config = configs(model_directory, engine_kwargs={"hf_server": {"dytpe": "float32"}})
    with pytest.raises(ValueError, match=r"dytpe\. Did you mean 'dtype'"):
        HFServerReplica(replica_rank=0, config=config, model_config=model_config, gpus_per_node=1)
