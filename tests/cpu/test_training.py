"""verl's training worker trains on CPU through FSDP2: actor, critic and reference, two ranks sharing the work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

SCRIPT = Path(__file__).with_name("train_one_step.py")


def run_ranks(directory: Path, world: int) -> list[dict[str, Any]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        **os.environ, "VERL_PLATFORM": "cpu", "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1",
        "VERL_USE_EXTERNAL_MODULES": "cleaner.cpu.plugin",
    }  # fmt: skip
    command = [sys.executable, str(SCRIPT), str(directory)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen(command, env={**common, "RANK": str(rank)}, **pipes) for rank in range(world)]
    results = []
    try:
        for process in ranks:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors[-4000:]
            [line] = [line for line in output.splitlines() if line.startswith("RESULT")]
            results.append(json.loads(line.removeprefix("RESULT")))
    finally:
        for process in ranks:
            process.kill()
    return results


@pytest.fixture(scope="module")
def untied_model(model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a head of its own, which upstream builds on the meta device on all ranks but the first."""
    directory = tmp_path_factory.mktemp("untied")
    for file in model_directory.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    config = AutoModelForCausalLM.from_pretrained(model_directory).config
    config.tie_word_embeddings = False
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def two_ranks(untied_model: Path) -> list[dict[str, Any]]:
    return run_ranks(untied_model, 2)


def test_the_ranks_meet_over_gloo(two_ranks: list[dict[str, Any]]) -> None:
    assert [rank["backend"] for rank in two_ranks] == ["cpu:gloo"] * 2


def test_actor_and_critic_learn_and_their_weights_move(
    two_ranks: list[dict[str, Any]], untied_model: Path
) -> None:
    for kind in ("language_model", "value_model"):
        losses = two_ranks[0][kind]["losses"]
        assert losses[0] > losses[1] > losses[2]
    state = AutoModelForCausalLM.from_pretrained(untied_model).state_dict()
    after = two_ranks[0]["language_model"]["norms"]
    assert set(after) == set(state)
    assert all(abs(after[name] - float(tensor.double().norm())) > 1e-4 for name, tensor in state.items())


def test_both_ranks_hold_the_same_weights(two_ranks: list[dict[str, Any]]) -> None:
    first, second = two_ranks
    for kind in ("language_model", "value_model"):
        assert first[kind] == second[kind]


def test_a_reference_model_computes_the_models_log_probs(
    two_ranks: list[dict[str, Any]], untied_model: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(untied_model)
    for i in range(4):
        found = two_ranks[i % 2]["reference"][i // 2]
        row = torch.arange(2 + i, 12 + 2 * i)
        with torch.no_grad():
            expected = torch.log_softmax(model(input_ids=row[None]).logits[0, :-1], -1).gather(
                1, row[1:, None]
            )
        # verl leaves a row's last log-probability undefined
        torch.testing.assert_close(torch.tensor(found[:-1]), expected.squeeze(1), atol=1e-4, rtol=1e-4)
