"""Graft credit on a real model: every log-probability and weight is what brute force says, and training uses them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from purified import ERROR, MODEL, Purified, make_server, purified
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from cleaner.graft_credit import geometric_mean_weights, graft_weights, weight_metrics
from cleaner.saar.trajectory import Origin

SCRIPT = Path(__file__).with_name("train_on_grafts.py")
FLOAT32 = 1e-3
"""What the actor's arithmetic in float32 may lose to float64, which depends on the processor's kernels."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trajectories() -> list[Purified]:
    """Of 12 prompts: every repair shallow, and (nearly) every one deep."""
    server = make_server()
    try:
        made = [purified(server, prompts=12, gamma=gamma) for gamma in (0.0, 1.0)]
    finally:
        server._loop.close()
    return made[0] + made[1]


@pytest.fixture(scope="module")
def plain() -> PreTrainedModel:
    """transformers' own model in float64, but for its normalisation, which steps down to float32 whatever its type."""

    def in_float64(self: Qwen2RMSNorm, states: torch.Tensor) -> torch.Tensor:
        return self.weight * states / (states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).sqrt()

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float64).eval()
    for module in model.modules():
        if isinstance(module, Qwen2RMSNorm):
            module.forward = MethodType(in_float64, module)  # type: ignore[method-assign]
    return model


def log_probs_after(model: PreTrainedModel, context: list[int], tokens: list[int]) -> torch.Tensor:
    """Log-probability of each of `tokens` after `context` and the tokens before it, at temperature 1."""
    ids = torch.tensor([context + tokens])
    with torch.no_grad():
        log_probs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0], -1)
    return log_probs[len(context) - 1 : -1].gather(1, torch.tensor(tokens)[:, None]).squeeze(1)


def clean_log_probs(model: PreTrainedModel, trajectory: Purified) -> torch.Tensor:
    """Of the whole response, each token after what stands before it in the purified history."""
    return log_probs_after(model, trajectory.prompt, trajectory.response)


def test_there_are_shallow_and_deep_grafts_and_trajectories_without_one(trajectories: list[Purified]):
    shallow = [t for t in trajectories if t.statistics["shallow"]]
    deep = [t for t in trajectories if t.statistics["deep"]]
    assert len(shallow) >= 8 and len(deep) >= 8
    assert any(t.grafts and t.grafts[0][0] > 0 for t in shallow), "no reasoning was kept"
    assert all(t.grafts[0][0] == 0 for t in deep if not t.statistics["exhausted"])
    assert any(not t.grafts for t in trajectories)


def test_a_graft_was_sampled_after_the_error_and_stands_where_there_is_none(trajectories: list[Purified]):
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for trajectory in trajectories:
        if not trajectory.statistics["exhausted"]:
            assert ERROR not in tokenizer.decode(trajectory.response)
        for start, stop in trajectory.grafts:
            clean = tokenizer.decode(trajectory.prompt + trajectory.response[:start])
            sampled = tokenizer.decode(trajectory.sampled_after(start, stop))
            assert sampled.count("<tool_response>") > clean.count("<tool_response>")
            assert ERROR in sampled


def test_weights_are_the_exact_importance_ratios_of_the_two_contexts(
    trajectories: list[Purified], plain: PreTrainedModel
):
    compared = 0
    for trajectory in trajectories:
        clean = clean_log_probs(plain, trajectory)
        rollout = torch.tensor(trajectory.log_probs, dtype=torch.float64)
        origin = torch.tensor(trajectory.origin)
        weights = graft_weights(clean[None], rollout[None], origin[None])[0]
        ungrafted = origin == Origin.SAMPLED
        assert (clean - rollout)[ungrafted].abs().max() < 1e-6
        assert (weights[origin != Origin.GRAFTED] == 1).all()
        for start, stop in trajectory.grafts:
            context, tokens = trajectory.sampled_after(start, stop), trajectory.response[start:stop]
            sampled = log_probs_after(plain, context, tokens)
            assert (rollout[start:stop] - sampled).abs().max() < 1e-6
            torch.testing.assert_close(
                weights[start:stop], (clean[start:stop] - sampled).exp(), rtol=1e-5, atol=0
            )
            compared += stop - start
    assert compared > 500


def test_the_contexts_differ_enough_for_the_weights_to_matter(
    trajectories: list[Purified], plain: PreTrainedModel
):
    clean = pad([clean_log_probs(plain, t) for t in trajectories])
    rollout = pad([torch.tensor(t.log_probs, dtype=torch.float64) for t in trajectories])
    origin = pad([torch.tensor(t.origin) for t in trajectories])
    weights = graft_weights(clean, rollout, origin)
    assert len(geometric_mean_weights(weights, origin)) == sum(len(t.grafts) for t in trajectories)
    metrics = weight_metrics(weights, origin, threshold=2.0)
    assert metrics["graft/tokens"] == (origin == Origin.GRAFTED).sum()
    assert metrics["graft/weight/min"] < 0.5 and metrics["graft/weight/max"] > 2
    assert 0 < metrics["graft/weight/truncated_share"] < 0.5


def test_the_gate_asks_the_server_and_gets_the_geometric_mean_of_brute_force(plain: PreTrainedModel):
    """At a threshold that lets every graft through, its weight is in the record of the repair."""
    server = make_server()
    try:
        made = purified(server, prompts=6, gamma=1.0, graft_credit="gate", gate_threshold=0.0)
    finally:
        server._loop.close()
    compared = 0
    for trajectory in made:
        recorded = [r["weight"] for r in trajectory.repairs if r["decision"] != "exhausted"]
        for (start, stop), weight in zip(trajectory.grafts, recorded, strict=True):
            context, tokens = trajectory.sampled_after(start, stop), trajectory.response[start:stop]
            ratio = clean_log_probs(plain, trajectory)[start:stop] - log_probs_after(plain, context, tokens)
            assert weight == pytest.approx(float(ratio.mean().exp()), rel=1e-6)
            compared += 1
    assert compared >= 4


def pad(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@pytest.fixture(scope="module")
def trained(trajectories: list[Purified], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What train_on_grafts.py made of the trajectories, half of which are rewarded."""
    folder = tmp_path_factory.mktemp("training")
    rows = [
        {
            "prompt": t.prompt, "response": t.response, "response_mask": t.output.response_mask,
            "rollout_log_probs": t.log_probs, "origin": t.origin, "advantage": 1.0 if number % 2 else -1.0,
        }
        for number, t in enumerate(trajectories)
    ]  # fmt: skip
    torch.save(rows, folder / "trajectories.pt")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "VERL_PLATFORM": "cpu", "RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1",
        "VERL_USE_EXTERNAL_MODULES": "cleaner.cpu.plugin",
    }  # fmt: skip
    paths = [str(MODEL), str(folder / "trajectories.pt"), str(folder / "result.pt")]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *paths], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "result.pt")


@pytest.mark.slow
def test_the_actor_agrees_with_the_server_on_what_was_not_grafted(
    trajectories: list[Purified], trained: dict[str, Any]
):
    for trajectory, old in zip(trajectories, trained["old_log_probs"], strict=True):
        assert len(old) == len(trajectory.response)
        difference = torch.tensor(old).double() - torch.tensor(trajectory.log_probs, dtype=torch.float64)
        ungrafted = torch.tensor(trajectory.origin) == Origin.SAMPLED
        assert ungrafted.any()
        assert difference[ungrafted].abs().max() < FLOAT32


@pytest.mark.slow
def test_weights_from_the_actors_log_probs_are_those_of_brute_force(
    trajectories: list[Purified], trained: dict[str, Any], plain: PreTrainedModel
):
    for trajectory, old in zip(trajectories, trained["old_log_probs"], strict=True):
        rollout, origin = torch.tensor([trajectory.log_probs]), torch.tensor([trajectory.origin])
        weights = graft_weights(torch.tensor([old]), rollout, origin)[0]
        for start, stop in trajectory.grafts:
            context, tokens = trajectory.sampled_after(start, stop), trajectory.response[start:stop]
            ratio = clean_log_probs(plain, trajectory)[start:stop] - log_probs_after(plain, context, tokens)
            torch.testing.assert_close(weights[start:stop].double(), ratio.exp(), rtol=FLOAT32, atol=0)


@pytest.mark.slow
def test_a_step_on_trajectories_whose_first_call_failed_moves_the_weights(
    trajectories: list[Purified], trained: dict[str, Any]
):
    failing = [t for t in trajectories if t.statistics["triggered"]]
    assert len(failing) >= 0.75 * len(trajectories)
    assert all(t.grafts for t in failing if not t.statistics["exhausted"])
    assert len(trained["moved"]) > 30
    assert all(distance > 1e-4 for distance in trained["moved"].values())
    assert trained["metrics"]["actor/pg_clipfrac"] == 0.0  # the first step is on the policy that sampled
