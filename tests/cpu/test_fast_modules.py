"""Replaced modules compute what the model's own do; what is not recognised stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM, Qwen2ForCausalLM

from cleaner.cpu import fast_modules

from .conftest import VOCABULARY, sharpen, tiny_config


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_logits_stay_equal(make_model, dtype):
    ids = torch.randint(2, VOCABULARY, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = make_model(dtype, fast=False)(input_ids=ids).logits
        fast = make_model(dtype, fast=True)(input_ids=ids).logits
    torch.testing.assert_close(fast, plain, atol=2e-4, rtol=1e-4)


def test_what_was_replaced_is_reported_and_no_class_is_touched():
    model = Qwen2ForCausalLM(tiny_config())
    assert fast_modules.install(model, 100) == ["attention", "rms_norm", "rotary"]
    other = Qwen2ForCausalLM(tiny_config())
    assert "forward" not in vars(other.model.norm) and other.config._attn_implementation == "sdpa"
    assert "forward" in vars(model.model.norm)


def test_weights_that_arrive_later_take_effect():
    model = sharpen(Qwen2ForCausalLM(tiny_config()))
    fast_modules.install(model, 100)
    plain = sharpen(Qwen2ForCausalLM(tiny_config()))
    with torch.no_grad():
        plain.model.norm.weight.fill_(3.0)
        model.load_state_dict(plain.state_dict())
        ids = torch.tensor([[4, 5, 6]])
        torch.testing.assert_close(
            model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4, rtol=1e-4
        )


def test_a_norm_of_another_definition_is_left_alone():
    config = GemmaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16,
    )  # fmt: skip
    model = GemmaForCausalLM(config)  # its norm multiplies by 1 + weight
    before = model.model.norm.weight.clone()
    assert "rms_norm" not in fast_modules.install(model, 100)
    assert torch.equal(model.model.norm.weight, before)


def test_half_precision_keeps_the_models_own_norms():
    model = Qwen2ForCausalLM(tiny_config()).to(torch.bfloat16)
    assert fast_modules.install(model, 100) == ["attention", "rotary"]


def test_an_adaptive_rotary_embedding_is_left_alone():
    config = tiny_config(
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    )
    assert "rotary" not in fast_modules.install(Qwen2ForCausalLM(config), 100)


def test_grouped_attention_equals_attention_with_repeated_keys():
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(3, 6, 1, 8, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(3, 2, 10, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.zeros(3, 1, 1, 10, dtype=torch.float64)
    mask[1, :, :, 4:] = float("-inf")
    module = nn.Module()
    module.num_key_value_groups = 3
    found, _ = fast_modules.grouped_sdpa(module, query, key, value, mask, scaling=0.3)
    scores = (query @ key.repeat_interleave(3, 1).transpose(2, 3)) * 0.3 + mask
    expected = torch.softmax(scores, -1) @ value.repeat_interleave(3, 1)
    torch.testing.assert_close(found, expected.transpose(1, 2))
