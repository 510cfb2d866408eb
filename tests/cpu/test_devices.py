"""What can be said of an accelerator without one.

On the device "meta" nothing is computed, tensors of another device are refused, and reading a value is an error. So
what runs there mixes no devices, and waits for none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from transformers import PreTrainedModel, Qwen2ForCausalLM

from cleaner.cpu import fast_modules
from cleaner.cpu.decoder import Decoder
from cleaner.cpu.scoring import score_tokens

from .conftest import MAX_LENGTH, request, tiny_config

UNREADABLE = "Cannot copy out of meta tensor"


@pytest.fixture(params=[torch.float16, torch.bfloat16, torch.float32], ids=str)
def elsewhere(request: pytest.FixtureRequest) -> PreTrainedModel:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(tiny_config()).eval().to(request.param)
    model.set_attn_implementation(fast_modules.GROUPED_SDPA)
    return model


@torch.inference_mode()
def test_the_decoder_keeps_to_its_models_device_and_a_step_waits_for_it_once(
    elsewhere: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Decoder(elsewhere, max_length=MAX_LENGTH, max_rows=8)
    prompt = list(range(2, 26))
    decoder.admit([request([*prompt, 30], top_p=0.9, top_k=5), request([*prompt, 31], temperature=0.0)])
    decoder.admit([request([*prompt, 32, 33], temperature=0.5)])  # goes on from a prefix in the pool
    assert decoder.stats.cached_tokens > 0
    with pytest.raises(NotImplementedError, match=UNREADABLE):
        decoder.step()

    # The same step with an answer to its one question: nothing ends, all numbers are finite.
    read = torch.Tensor.tolist
    asked = []

    def answer(tensor: torch.Tensor) -> list[list[bool]]:
        if tensor.device.type != "meta":
            return read(tensor)
        asked.append(tuple(tensor.shape))
        return [[False] * 3, [True] * 3]

    monkeypatch.setattr(torch.Tensor, "tolist", answer)
    decoder.step()
    assert asked == [(2, 3)]
    decoder._close_gaps([0])
    assert decoder.running == 2


def test_scoring_waits_for_the_device_at_its_end_only(elsewhere: PreTrainedModel) -> None:
    passes = []
    elsewhere.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(NotImplementedError, match=UNREADABLE):
        score_tokens(elsewhere, list(range(40)), temperature=0.7, tokens_per_pass=16)
    assert len(passes) == 3


PROGRAM = """
import json
from verl.workers.engine import EngineRegistry
def engines():
    return [EngineRegistry.get_engine_cls("language_model", name).__module__ for name in ("fsdp", "fsdp2")]
before = engines()
import cleaner.cpu.backend
print("RESULT" + json.dumps([before, engines()]))
"""


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash attention is installed")
def test_on_cuda_without_flash_attention_the_engine_computes_log_probabilities_at_once() -> None:
    environment = {**os.environ, "VERL_PLATFORM": "nvidia", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), "")
    assert line, done.stderr
    upstream, ours = "verl.workers.engine.fsdp.transformer_impl", "cleaner.cpu.cuda_engine"
    assert json.loads(line.removeprefix("RESULT")) == [[upstream] * 2, [ours] * 2]
