"""Reused prefixes: found by content, bounded, and without any effect on answers."""

from __future__ import annotations

import pytest
import torch

from cleaner.cpu.decoder import Decoder
from cleaner.cpu.prefix_pool import PrefixPool

from .conftest import MAX_LENGTH, prompts, request, run_all

LAYERS = [(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))]


def pool(tokens: int = 100) -> PrefixPool:
    return PrefixPool(max_bytes=tokens, bytes_per_token=1, max_length=64)


def test_the_longest_common_beginning_is_found():
    p = pool()
    p.add([1, 2, 3], LAYERS)
    p.add([1, 2, 9, 9, 9], LAYERS)
    assert p.common([1, 2, 9, 4])[1] == 3
    assert p.common([1, 2, 3, 4, 5])[1] == 3
    assert p.common([7, 2, 3]) == (None, 0)
    assert p.common([]) == (None, 0)


def test_an_entry_replaces_those_that_it_extends():
    p = pool()
    for tokens in ([1], [1, 2], [5, 6], [1, 2, 3]):
        p.add(tokens, LAYERS)
    assert (len(p), p.tokens) == (2, 5)
    assert p.common([5, 6, 7])[1] == 2
    assert not p.wants([1, 2])
    assert p.wants([1, 2, 4])


def test_the_least_recently_used_entry_goes_first():
    p = pool(tokens=9)
    p.add([1, 1, 1], LAYERS)
    p.add([2, 2, 2], LAYERS)
    p.add([3, 3, 3], LAYERS)
    p.common([1, 1])
    p.add([4, 4, 4], LAYERS)
    assert p.common([2, 2])[1] == 0
    assert [p.common([i] * 3)[1] for i in (1, 3, 4)] == [3, 3, 3]
    assert not p.wants([5] * 10)


def test_many_entries_and_clearing():
    p = pool(tokens=1000)
    for i in range(50):
        p.add([i, i + 1, i + 2], LAYERS)
    assert all(p.common([i, i + 1, i + 2, 7])[1] == 3 for i in range(50))
    p.clear()
    assert (len(p), p.tokens) == (0, 0)


def test_a_further_turn_computes_only_what_is_new(decoder):
    [prompt] = prompts(1, shortest=30, longest=30)
    [first] = run_all(decoder, [request(prompt, max_tokens=10)])
    before = decoder.stats.prefilled_tokens
    observation = [7, 8, 9, 10]
    [second] = run_all(decoder, [request(prompt + first.tokens + observation, seed=3)])
    assert second.cached_tokens == 39  # the answer's last token has not been computed with
    assert decoder.stats.prefilled_tokens - before == 4  # that one and three of the observation


def test_samples_of_one_prompt_share_its_computation(decoder):
    [prompt] = prompts(1, shortest=33, longest=33)
    answers = run_all(decoder, [request(prompt, seed=i) for i in range(8)])
    assert decoder.stats.prefilled_tokens == 32
    assert sorted(a.cached_tokens for a in answers) == [0] + [32] * 7


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reuse_changes_no_answer(make_model, dtype):
    """Branches from one history, as look-ahead makes them, with the pool and without."""
    results = []
    for prefix_bytes in (0, 1 << 20):
        decoder = Decoder(make_model(dtype), max_length=MAX_LENGTH, prefix_bytes=prefix_bytes)
        history = prompts(1, seed=21, shortest=40, longest=40)[0]
        log_probs, tokens = [], []
        for turn in range(4):
            attempts = run_all(
                decoder, [request(history + [40 + a], seed=10 * turn + a, max_tokens=9) for a in range(3)]
            )
            history = history + [40] + attempts[0].tokens
            tokens += [a.tokens for a in attempts]
            log_probs += [x for a in attempts for x in a.log_probs]
        results.append((tokens, torch.tensor(log_probs, dtype=torch.float64)))
        assert (decoder.stats.cached_tokens > 0) == bool(prefix_bytes)
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(
        results[0][1], results[1][1], rtol=0, atol=1e-12 if dtype is torch.float64 else 1e-4
    )


def test_new_weights_must_not_meet_old_prefixes(make_model):
    [prompt] = prompts(1, shortest=30, longest=30)
    model = make_model()
    decoder = Decoder(model, max_length=MAX_LENGTH)
    [old] = run_all(decoder, [request(prompt)])
    model.load_state_dict(make_model(seed=5).state_dict())
    decoder.forget_prefixes()
    [new] = run_all(decoder, [request(prompt)])
    [fresh] = run_all(Decoder(make_model(seed=5), max_length=MAX_LENGTH), [request(prompt)])
    assert new.tokens == fresh.tokens != old.tokens
