"""The bounded ratio: difflib's numbers, a budget that is kept, and bounds that hold when it is spent."""

import difflib
import json
import random
import threading
import time

import cydifflib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar.metrics import sequences
from cleaner.saar.metrics.automaton import longest_shared
from cleaner.saar.metrics.sequences import BUDGET_NS, Budget, ratio
from cleaner.saar.similarity import METRICS, similarity

some = st.text(alphabet="abc def(", max_size=120)


def stdlib(a, b):
    return difflib.SequenceMatcher(None, a, b, autojunk=False)


def test_cydifflib_is_used():
    assert sequences.SequenceMatcher is cydifflib.SequenceMatcher


def test_the_longest_shared_run_is_difflibs_ties_included():
    generator = random.Random(0)
    for _ in range(3_000):
        letters = generator.choice(["ab", "abc", "abcdefgh"])
        a, b = ("".join(generator.choices(letters, k=generator.randrange(1, 30))) for _ in range(2))
        expected = tuple(stdlib(a, b).find_longest_match())
        assert longest_shared(a, b) == (expected if expected[2] else (0, 0, 0)), (a, b)
    assert longest_shared("", "a") == longest_shared("a", "") == (0, 0, 0)


# Pieces by runs of cydifflib, by the automaton, and whole: which way is taken must not show in the result.
WAYS = {"whole": (1e12, 1e12), "by runs of cydifflib": (0, 1e12), "by the automaton": (0, 0)}


@pytest.mark.parametrize("way", WAYS)
@given(a=some, b=some, lists=st.booleans())
def test_the_ratio_is_difflibs_whatever_finds_the_runs(way, a, b, lists):
    if lists:
        a, b = [len(word) for word in a.split(" ")], [len(word) for word in b.split(" ")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_WHOLE_NS", WAYS[way][0])
        patch.setattr(sequences, "_HOLD_NS", WAYS[way][1])
        found = ratio(a, b, 0.5)
    assert found.exact and found.value == stdlib(a, b).ratio()


@given(a=some, b=some)
def test_without_cydifflib_the_numbers_are_the_same(a, b):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "SequenceMatcher", difflib.SequenceMatcher)
        patch.setattr(sequences, "_PAIR_NS", 120.0)
        assert ratio(a, b, 0.5).value == stdlib(a, b).ratio()


@given(
    a=some,
    b=some,
    gamma=st.floats(0, 1),
    budget=st.integers(0, 400_000),
    whole=st.sampled_from([0, 1e5, 1e6]),
)
def test_with_a_small_budget_the_value_is_a_bound_on_the_right_side_of_gamma_or_below_it(
    a, b, gamma, budget, whole
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_WHOLE_NS", whole)
        left = Budget(budget)
        found = ratio(a, b, gamma, left)
    exact = stdlib(a, b).ratio()
    assert left.left >= 0
    if found.exact:
        assert found.value == exact
    elif found.value > exact:
        assert found.value < gamma
    if found.value >= gamma:
        assert exact >= gamma


@given(a=some, b=some, gamma=st.floats(0, 1))
def test_of_long_texts_an_upper_bound_is_enough_below_gamma(a, b, gamma):
    a, b = (a + "a") * 40, (b + "b") * 45
    found = ratio(a, b, gamma)
    if len(a) + len(b) > sequences.EXACT_ELEMENTS and stdlib(a, b).quick_ratio() < gamma:
        assert not found.exact and stdlib(a, b).quick_ratio() <= found.value < gamma
    elif found.exact:
        assert found.value == cydifflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def code_of_length(chars, seed=1):
    generator = random.Random(seed)
    lines = (
        f"v{generator.randrange(999)} = v{generator.randrange(999)} * {generator.randrange(99)} + 1"
        for _ in range(chars // 15)
    )
    return "\n".join(lines)[:chars]


def test_long_code_with_a_few_changes_is_compared_exactly_and_soon():
    a = code_of_length(20_000)
    b = a[:5_000] + "changed" + a[5_010:12_000] + a[12_300:]
    expected = cydifflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    found = ratio(a, b, 0.5)
    assert found.exact and found.value == expected > 0.97


def hard(chars):
    """Pairs whose plain comparison would take minutes to days."""
    generator = random.Random(0)
    yield "a" * chars, "ab" * (chars // 2)
    yield "a;" * (chars // 2), "b;a;" * (chars // 4)
    yield "".join(generator.choices("ab", k=chars)), "".join(generator.choices("ab", k=chars))
    yield " ".join(generator.choices("xy", k=chars // 2)), " ".join(generator.choices("xy", k=chars // 2))
    yield "a" + "\u0301\u0316" * (chars // 2), "a" + "\u0316\u0301" * (chars // 2)


# Much longer than what was measured (1 s), so that a loaded machine passes, and much shorter than without a bound.
SOON = 8.0


@pytest.mark.parametrize("chars", [1_200, 19_000, 200_000])
@pytest.mark.parametrize("metric", METRICS)
def test_no_comparison_takes_long_or_keeps_other_threads_waiting(metric, chars):
    late = 0.0
    done = threading.Event()

    def watch():
        nonlocal late
        before = time.perf_counter()
        while not done.wait(0.001):
            now = time.perf_counter()
            late, before = max(late, now - before), now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        for pair in hard(chars):
            failed, accepted = (json.dumps({"code": text}) for text in pair)
            started = time.perf_counter()
            found = similarity([failed], [accepted], 0.5, metric)
            assert time.perf_counter() - started < SOON
            assert 0 <= found.value <= 1
    finally:
        done.set()
        thread.join()
    assert late < SOON / 8


def test_a_spent_budget_gives_the_same_in_every_run():
    pair = "a" * 2_500, "ab" * 1_200
    found = [ratio(*pair, 0.4) for _ in range(3)]
    assert len(set(found)) == 1 and not found[0].exact


def test_parts_of_one_comparison_share_a_budget():
    records = [
        {"q": ["a" * 300 + str(n) for n in range(200)]},
        {"q": ["ab" * 150 + str(n) for n in range(200)]},
    ]
    found = similarity([json.dumps(records[0])], [json.dumps(records[1])], 0.5, "json")
    assert not found.exact and 0.2 <= found.value < 0.5
    assert BUDGET_NS <= 1e9
