"""What is compared, and that the fast ratio is difflib's."""

import difflib
import json

import cydifflib
from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar import similarity as module
from cleaner.saar.similarity import code_of, comparable_text, similarity

text = st.text(alphabet="ab \n=()中😀", max_size=60)


@given(a=text, b=text)
def test_ratio_is_difflibs_without_autojunk_bit_for_bit(a, b):
    assert module.SequenceMatcher is cydifflib.SequenceMatcher
    exact = difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    found = similarity(a, b, 0.5)
    assert found.exact and found.value == exact


def test_order_is_failed_then_accepted():
    a, b = "tide", "diet"
    assert similarity(a, b, 0.5).value != similarity(b, a, 0.5).value
    assert similarity(a, b, 0.5).value == difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


@given(a=text, b=text, gamma=st.floats(0, 1))
def test_of_long_texts_a_bound_decides_only_what_the_exact_ratio_would(a, b, gamma):
    a, b = a * 100, b * 70
    exact = difflib.SequenceMatcher(None, a, b, autojunk=False)
    found = similarity(a, b, gamma)
    if found.exact:
        assert found.value == exact.ratio() if len(a) + len(b) < 3000 else True
    else:
        assert exact.quick_ratio() <= found.value < gamma


def test_wrapped_one_liners_are_not_alike():
    calls = [json.dumps({"code": code}) for code in ("import math", "x = [0] * 9")]
    plain = similarity(comparable_text(calls[0]), comparable_text(calls[1]), 0.5).value
    assert plain < 0.3 < similarity(calls[0], calls[1], 0.5).value


def test_code_is_read_of_whole_and_of_broken_arguments():
    assert code_of('{"code": "a\\nb"}') == "a\nb"
    assert code_of('{"name": "run", "arguments": {"code": "x"}}') == "x"
    assert code_of('{"name": "run", "arguments": {"code": "print(\\"\\u00e9\\")\\n') == 'print("é")\n'
    assert code_of('{"query": "x"}') is None and code_of("[1]") is None and code_of("") is None
    assert comparable_text('{"b": 1, "a": 2}') == '{"a": 2, "b": 1}'
    assert comparable_text("{oh") == "{oh"


def test_frequent_characters_of_long_code_are_no_junk():
    a = "".join(f"x{n} = {n} + y\n" for n in range(40))
    b = "".join(f"z{n} = {n} * y\n" for n in range(40))
    exact = difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()
    assert similarity(a, b, 0.5).value == exact > difflib.SequenceMatcher(None, a, b).ratio() + 0.1
