"""Sampling parameters, and the batched sampler against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cleaner.cpu.sampling import RowSampling, SamplingParams, draw_uniforms, sample

CPU = torch.device("cpu")


def frequencies(logits: torch.Tensor, params: SamplingParams, count: int = 20_000) -> torch.Tensor:
    rows = RowSampling.stack([params] * count, CPU)
    tokens, _ = sample(logits.expand(count, -1), rows, draw_uniforms(0, count))
    return torch.bincount(tokens, minlength=logits.shape[-1]) / count


def test_frequencies_follow_the_distribution_at_the_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -9.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(logits / temperature, -1)
        found = frequencies(logits, SamplingParams(temperature=temperature))
        torch.testing.assert_close(found, expected, atol=0.012, rtol=0)


def test_top_k_and_top_p_keep_the_most_probable_tokens_renormalised():
    probabilities = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
    found = frequencies(probabilities.log(), SamplingParams(top_k=3))
    torch.testing.assert_close(found, torch.tensor([0, 0.4, 0, 0.25, 0.2]) / 0.85, atol=0.012, rtol=0)
    found = frequencies(probabilities.log(), SamplingParams(top_p=0.6))
    torch.testing.assert_close(found, torch.tensor([0, 0.4, 0, 0.25, 0]) / 0.65, atol=0.012, rtol=0)
    # top-p counts within what top-k left: 0.4 / 0.65 already reaches 0.6
    found = frequencies(probabilities.log(), SamplingParams(top_k=2, top_p=0.6))
    assert found.tolist() == [0, 1, 0, 0, 0]


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=40), st.integers(0, 2**40), st.data())
@settings(max_examples=150, deadline=None)
def test_rows_are_sampled_as_if_alone_and_never_outside_the_truncation(scores, seed, data):
    """Unlike rows in one batch; u at both ends of its range included."""
    logits = torch.tensor(scores, dtype=torch.float64)
    params = data.draw(
        st.lists(
            st.builds(
                SamplingParams,
                temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
                top_p=st.sampled_from([0.01, 0.5, 0.999, 1.0]),
                top_k=st.sampled_from([0, 1, 3, 1000]),
            ),
            min_size=1,
            max_size=6,
        )
    )
    uniforms = draw_uniforms(seed, len(params))
    uniforms[0] = data.draw(st.sampled_from([0.0, float(uniforms[0]), 1.0 - 2.0**-52]))
    batch = logits.expand(len(params), -1)
    tokens, log_probs = sample(batch, RowSampling.stack(params, CPU), uniforms)
    for i, p in enumerate(params):
        token, log_prob = sample(batch[:1], RowSampling.stack([p], CPU), uniforms[i : i + 1])
        assert (token[0], log_prob[0]) == (tokens[i], log_probs[i])
        full = torch.log_softmax(logits / (p.temperature or 1.0), -1)
        assert log_prob[0] == pytest.approx(float(full[token[0]]), abs=1e-9)
        better = full[full > full[token[0]]]
        if p.greedy:
            assert not len(better)
        else:
            assert not p.top_k or len(better) < p.top_k
            assert p.top_p == 1 or float(better.exp().sum()) < p.top_p + 1e-9
            assert full[token[0]] > -700  # positive probability in float64


def test_uniform_numbers_come_from_the_seed_alone_and_longer_draws_only_continue():
    assert torch.equal(draw_uniforms(7, 500)[:20], draw_uniforms(7, 20))
    assert not torch.equal(draw_uniforms(7, 20), draw_uniforms(8, 20))
    assert draw_uniforms(2**63 - 1, 1000).max() < 1


def test_verl_sampling_parameters_are_understood():
    params = SamplingParams.from_mapping(
        {
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "logprobs": True,
            "seed": 2**62,
        },
        eos_token_ids=(1, 2),
    )
    assert params == SamplingParams(seed=2**62, stop_token_ids=(1, 2), logprobs=True)
    greedy = SamplingParams.from_mapping({"temperature": 0, "top_p": 1.0, "top_k": -1, "stop_token_ids": [9]})
    assert greedy.greedy and greedy.stop_token_ids == (9,)
    without_end = SamplingParams.from_mapping({"max_new_tokens": 5, "ignore_eos": True}, eos_token_ids=(1,))
    assert without_end == SamplingParams(max_tokens=5, logprobs=False)
    assert SamplingParams.from_mapping({"do_sample": False}).greedy


@pytest.mark.parametrize(
    ("given_params", "message"),
    [
        ({"temprature": 1.0}, "unknown sampling parameter 'temprature'; did you mean 'temperature'"),
        ({"temperature": -0.1}, r"temperature=-0\.1"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"top_p": 0.0}, r"top_p=0\.0"),
        ({"top_k": -2}, "top_k=-2"),
        ({"seed": 2**64}, "seed="),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1 is not supported"),
        ({"n": 2}, "n=2 is not supported"),
        ({"stop": ["###"]}, "stop=.* is not supported"),
        ({"prompt_logprobs": 5}, "prompt_logprobs=5: must be 0"),
    ],
)
def test_wrong_or_unsupported_parameters_are_named(given_params, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams.from_mapping(given_params)
