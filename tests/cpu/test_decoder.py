"""The decoder gives what the model says, whoever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

from cleaner.cpu import fast_modules
from cleaner.cpu.decoder import Decoder
from cleaner.cpu.scoring import score_tokens
from cleaner.cpu.server import _round

from .conftest import MAX_LENGTH, VOCABULARY, drain, prompts, request, run_all, sharpen


def hf_greedy(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_greedy_answers_equal_transformers_generate(make_model, dtype, fast):
    reference = make_model(dtype, fast=False)
    some = prompts(9)
    expected = [hf_greedy(reference, prompt, 20 + i) for i, prompt in enumerate(some)]
    decoder = Decoder(make_model(dtype, fast=fast), max_length=MAX_LENGTH)
    answers = run_all(decoder, [request(p, temperature=0.0, max_tokens=20 + i) for i, p in enumerate(some)])
    assert [a.tokens for a in answers] == expected
    assert {a.finish for a in answers} == {"length"}


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(num_key_value_heads=4, rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
        Qwen3Config(num_key_value_heads=1, head_dim=16),
        GPT2Config(n_embd=48, n_layer=2, n_head=4, n_positions=256),
    ],
    ids=lambda config: config.model_type,
)
def test_other_architectures_give_what_transformers_generate_gives(config):
    config.update({"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0})
    if config.model_type != "gpt2":
        config.update(
            {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "max_position_embeddings": 256}
        )  # fmt: skip
    torch.manual_seed(1)
    model = sharpen(AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")).double()
    some = prompts(5, seed=3)
    expected = [hf_greedy(model, prompt, 15) for prompt in some]
    fast_modules.install(model, MAX_LENGTH + 1)
    decoder = Decoder(model, max_length=MAX_LENGTH)
    assert [
        a.tokens for a in run_all(decoder, [request(p, temperature=0.0, max_tokens=15) for p in some])
    ] == expected


def test_a_model_with_sliding_windows_is_refused_by_name():
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match=r"full attention in every layer.*gemma3_text.*sliding_attention"):
        Decoder(model, max_length=64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_log_probs_equal_a_teacher_forced_forward_pass(make_model, dtype, tolerance, temperature):
    model = make_model(dtype)
    some = prompts(8, seed=5)
    decoder = Decoder(model, max_length=MAX_LENGTH)
    answers = run_all(decoder, [request(p, seed=i, temperature=temperature) for i, p in enumerate(some)])
    for prompt, answer in zip(some, answers, strict=True):
        ids = torch.tensor([prompt + answer.tokens])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double()
        expected = torch.log_softmax(logits / temperature, -1)
        expected = expected.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
        torch.testing.assert_close(
            torch.tensor(answer.log_probs, dtype=torch.float64), expected, rtol=0, atol=tolerance
        )


def test_log_probs_are_those_of_an_untouched_model_to_its_own_float32_precision(make_model):
    untouched = make_model(torch.float64, fast=False)
    [prompt] = prompts(1, seed=6)
    [answer] = run_all(Decoder(make_model(), max_length=MAX_LENGTH), [request(prompt, temperature=1.0)])
    with torch.no_grad():
        logits = untouched(input_ids=torch.tensor([prompt + answer.tokens])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
    torch.testing.assert_close(
        torch.tensor(answer.log_probs, dtype=torch.float64), expected, rtol=0, atol=1e-5
    )


def test_truncation_leaves_log_probs_those_of_the_whole_distribution(make_model):
    model = make_model()
    [prompt] = prompts(1, seed=7)
    [answer] = run_all(Decoder(model, max_length=MAX_LENGTH), [request(prompt, top_p=0.6, top_k=5)])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer.tokens]), use_cache=False).logits[0]
    expected = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    expected = expected.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
    torch.testing.assert_close(
        torch.tensor(answer.log_probs, dtype=torch.float64), expected, rtol=0, atol=1e-9
    )


def mixed_requests() -> list:
    kinds = [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9},
        {"temperature": 1.2, "top_k": 7},
        {"temperature": 0.0},
        {"temperature": 1.0, "stop_token_ids": (5, 9, 17, 33)},
    ]
    return [
        request(p, seed=1000 + i, max_tokens=8 + 3 * (i % 7), **kinds[i % len(kinds)])
        for i, p in enumerate(prompts(20, seed=8))
    ]


def test_answers_do_not_depend_on_batch_composition_or_arrival_order(make_model):
    """Together, alone, in another order between others' steps, with and without reuse of prefixes: equal to the bit."""

    def seen(completions: list) -> list:
        return [(c.tokens, _round(c.log_probs), c.finish) for c in completions]

    model = make_model()
    expected = seen(run_all(Decoder(model, max_length=MAX_LENGTH), mixed_requests()))

    lonely = Decoder(model, max_length=MAX_LENGTH, prefix_bytes=0)
    assert seen([run_all(lonely, [r])[0] for r in mixed_requests()]) == expected

    staggered = mixed_requests()
    decoder, done, arriving = Decoder(model, max_length=MAX_LENGTH, max_rows=6), {}, list(reversed(staggered))
    while arriving or decoder.running:
        joining = arriving[: min(3, decoder.free_rows)]
        del arriving[: len(joining)]
        decoder.admit(joining)
        done.update(decoder.step())
        done.update(decoder.step())
    assert seen([done[r] for r in staggered]) == expected

    again = mixed_requests()  # prompts now begin in the pool
    assert seen([c for i in range(0, 20, 6) for c in run_all(decoder, again[i : i + 6])]) == expected
    assert decoder.stats.cached_tokens > 0


def test_finished_rows_leave_the_batch(decoder):
    lengths = [3, 9, 1, 5, 9]
    decoder.admit([request(p, seed=i, max_tokens=lengths[i]) for i, p in enumerate(prompts(5))])
    running = []
    while decoder.running:
        running.append(decoder.running)
        decoder.step()
    assert running == [sum(length > step for length in lengths) for step in range(9)]
    assert decoder.stats.generated_tokens == sum(lengths)


def test_a_stop_token_ends_the_answer_and_belongs_to_it(make_model):
    model = make_model()
    [prompt] = prompts(1, seed=2)
    [free] = run_all(Decoder(model, max_length=MAX_LENGTH), [request(prompt, seed=4)])
    stop = free.tokens[6]
    first = free.tokens.index(stop)
    [stopped] = run_all(
        Decoder(model, max_length=MAX_LENGTH), [request(prompt, seed=4, stop_token_ids=(stop, 95))]
    )
    assert stopped.tokens == free.tokens[: first + 1]
    assert stopped.finish == "stop"
    assert len(stopped.log_probs) == first + 1


def test_the_answer_has_exactly_max_tokens_if_nothing_stops_it(decoder):
    for count in (1, 2, 30):
        [answer] = run_all(decoder, [request([4, 5], max_tokens=count)])
        assert (len(answer.tokens), len(answer.log_probs), answer.finish) == (count, count, "length")


def test_a_row_may_fill_the_whole_length(decoder):
    prompt = prompts(1, shortest=MAX_LENGTH - 5, longest=MAX_LENGTH - 5)[0]
    [answer] = run_all(decoder, [request(prompt, max_tokens=5)])
    assert len(answer.tokens) == 5


def test_more_than_fits_is_refused_and_harms_nobody(decoder):
    decoder.admit([request([3, 4, 5], max_tokens=4)])
    with pytest.raises(ValueError, match="exceed 160"):
        decoder.admit([request([3] * 150, max_tokens=11)])
    with pytest.raises(ValueError, match="at least one prompt token"):
        decoder.admit([request([], max_tokens=3)])
    with pytest.raises(ValueError, match="40 requests for 31 free rows"):
        decoder.admit([request([3], max_tokens=3)] * 40)
    assert [len(c.tokens) for c in drain(decoder).values()] == [4]


def test_equal_seeds_give_equal_answers_and_others_differ(decoder):
    [prompt] = prompts(1, seed=9)
    answers = run_all(decoder, [request(prompt, seed=s) for s in (1, 1, 2)])
    assert answers[0].tokens == answers[1].tokens
    assert answers[0].tokens != answers[2].tokens


def test_abort_returns_what_there_is(decoder):
    requests = [request(p, seed=i) for i, p in enumerate(prompts(3))]
    decoder.admit(requests)
    decoder.step()
    decoder.step()
    aborted = decoder.abort()
    assert [(len(c.tokens), c.finish) for _, c in aborted] == [(2, "aborted")] * 3
    assert decoder.running == 0
    full = run_all(decoder, [request(r.prompt, seed=r.seed) for r in requests])
    assert [c.tokens[:2] for c in full] == [c.tokens for _, c in aborted]


def test_memory_bounds_the_number_of_rows(make_model):
    model = make_model()
    per_token = 2 * 2 * 2 * 8 * 8  # layers, keys and values, heads, head size, bytes
    decoder = Decoder(model, max_length=99, kv_bytes=5 * 100 * per_token)
    assert decoder.max_rows == 5
    assert Decoder(model, max_length=99, kv_bytes=1).max_rows == 1


def test_memory_can_be_given_back_between_batches(decoder):
    [prompt] = prompts(1)
    [before] = run_all(decoder, [request(prompt)])
    decoder.free_memory()
    assert decoder.cache.rows == 0
    assert run_all(decoder, [request(prompt)])[0].tokens == before.tokens
    decoder.admit([request(prompt)])
    with pytest.raises(RuntimeError, match="1 requests are running"):
        decoder.free_memory()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_decodes_close_to_a_full_pass(make_model, dtype):
    model = make_model(dtype)
    [prompt] = prompts(1, seed=11)
    [answer] = run_all(Decoder(model, max_length=MAX_LENGTH), [request(prompt, max_tokens=12)])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer.tokens]), use_cache=False).logits[0].double()
    expected = torch.log_softmax(logits[len(prompt) - 1 : -1], -1)
    expected = expected.gather(1, torch.tensor(answer.tokens)[:, None]).squeeze(1)
    assert (torch.tensor(answer.log_probs, dtype=torch.float64) - expected).abs().mean() < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_logits_that_are_not_finite_are_an_error_that_names_the_format(make_model, dtype):
    model = make_model(dtype)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    decoder = Decoder(model, max_length=MAX_LENGTH)
    decoder.admit([request([5, 6, 7]), request([8, 9], temperature=0)])
    with pytest.raises(FloatingPointError, match=f"not finite in {str(dtype).removeprefix('torch.')}"):
        decoder.step()
    assert len(decoder.abort()) == 2 and not decoder.running
    with pytest.raises(FloatingPointError, match=r"hf_server\.dtype"):
        score_tokens(model, [5, 6, 7])
