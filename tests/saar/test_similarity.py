"""What every metric promises, and that the default is difflib's ratio."""

import difflib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar.similarity import MAX_CHARS, METRICS, code_of, comparable_text, similarity

text = st.text(alphabet="ab \n=()中😀", max_size=60)
every_metric = pytest.mark.parametrize("metric", METRICS)

scalar = st.one_of(st.text(max_size=8), st.integers(-9, 9), st.floats(), st.booleans(), st.none())
value = st.recursive(
    scalar,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
code_call = text.map(lambda code: json.dumps({"code": code}))
# Arguments as they come: of code, structured, broken, and any text at all, lone surrogates and NUL included.
anything = st.one_of(
    code_call,
    value.map(json.dumps),
    value.map(lambda v: json.dumps({"name": "run", "arguments": v})[:-2]),
    st.text(alphabet="{}[]\"':,\\u0 code\n#'", max_size=40),
    st.text(st.characters(exclude_categories=()), max_size=40),
)


def code_ratio(failed, accepted, gamma=0.5, metric="difflib"):
    return similarity([json.dumps({"code": failed})], [json.dumps({"code": accepted})], gamma, metric)


def stdlib(failed, accepted):
    return difflib.SequenceMatcher(None, failed, accepted, autojunk=False).ratio()


@given(a=text, b=text)
def test_the_default_is_difflibs_ratio_without_autojunk_bit_for_bit(a, b):
    found = code_ratio(a, b)
    assert found.exact and found.value == stdlib(a, b)


def test_order_is_failed_then_accepted():
    a, b = "tide", "diet"
    assert code_ratio(a, b).value != code_ratio(b, a).value
    assert code_ratio(a, b).value == stdlib(a, b)


@every_metric
@given(failed=st.lists(anything, max_size=3), accepted=st.lists(anything, max_size=3), gamma=st.floats(0, 1))
def test_any_text_gets_a_value_between_0_and_1(metric, failed, accepted, gamma):
    found = similarity(failed, accepted, gamma, metric)
    assert 0 <= found.value <= 1 and found.exact
    assert similarity(failed, accepted, gamma, metric) == found


@every_metric
@given(calls=st.lists(anything, max_size=3))
def test_identical_calls_have_similarity_1(metric, calls):
    assert similarity(calls, list(calls), 0.5, metric) == similarity([], [], 0.5, metric)
    assert similarity(calls, list(calls), 0.5, metric).value == 1.0


@every_metric
@given(value=value)
def test_arguments_that_differ_in_white_space_and_order_of_keys_only_have_similarity_1(metric, value):
    other = json.dumps({"b": 1, "a": value}, indent=3)
    found = similarity([json.dumps({"a": value, "b": 1})], [other], 0.5, metric)
    assert found.exact and found.value == 1.0


NASTY = {
    "open brackets": "(" * 10_000,
    "deep json": "[" * 100_000,
    "deep closed json": "[" * 5_000 + "]" * 5_000,
    "nul": "\0" * 100,
    "nul in code": json.dumps({"code": "x = 1\0"}),
    "lone surrogates": json.dumps({"code": "'\ud800'"}) + "\udfff",
    "more digits than Python converts": '{"n": ' + "1" * 5_000 + "}",
    "more digits than Python prints": json.dumps({"code": "x = 0x" + "f" * 8_000}),
    "a number that is too large for a float": '{"n": ' + "9" * 400 + "}",
    "a number that is none": '{"n": NaN}',
    "infinite": '{"n": -Infinity}',
    "open quotes": json.dumps({"code": '"""' + "'" * 999 + "\\"}),
    "backslash at the end": '{"code": "x\\',
    "minus": json.dumps({"code": "-" * 5_000 + "1"}),
    "sum": json.dumps({"code": "1+" * 5_000 + "1"}),
    "fractions": '{"n": 1.5}',
    "empty": "",
    "null": "null",
}


@every_metric
def test_no_text_raises(metric):
    for failed in NASTY.values():
        for accepted in NASTY.values():
            assert 0 <= similarity([failed], [accepted], 0.5, metric).value <= 1


@every_metric
def test_texts_beyond_all_bounds_are_not_compared_and_so_get_a_deep_repair(metric):
    long = [json.dumps({"code": letter * 2 * MAX_CHARS}) for letter in "ab"]
    assert similarity(long[:1], long[1:], 0.5, metric).value == 0.0
    assert similarity(long[:1], long[:1], 0.5, metric).value == 1.0


def test_an_unknown_metric_is_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'cosine'.*difflib, token, ast, json, text"):
        similarity(["a"], ["b"], 0.5, "cosine")


def test_one_string_in_place_of_a_list_is_refused():
    with pytest.raises(TypeError, match="sequences"):
        similarity("ab", "ab", 0.5)


def test_several_calls_are_compared_as_their_codes_in_lines():
    one, two, three = (json.dumps({"code": code}) for code in ("x = 1", "y = x + 1", "y = x - 1"))
    assert similarity([one, two], [one, three], 0.5).value == stdlib("x = 1\ny = x + 1", "x = 1\ny = x - 1")


def test_wrapped_one_liners_are_not_alike():
    codes = ("import math", "x = [0] * 9")
    wrapped = stdlib(*(json.dumps({"code": code}) for code in codes))
    for metric in METRICS:
        assert code_ratio(*codes, metric=metric).value < 0.3 < wrapped


def test_code_is_read_of_whole_and_of_broken_arguments():
    assert code_of('{"code": "a\\nb"}') == "a\nb"
    assert code_of('{"name": "run", "arguments": {"code": "x"}}') == "x"
    assert code_of('{"name": "run", "arguments": {"code": "print(\\"\\u00e9\\")\\n') == 'print("é")\n'
    assert code_of('{"query": "x"}') is None and code_of("[1]") is None and code_of("") is None
    assert comparable_text('{"b": 1, "a": 2}') == '{"a": 2, "b": 1}'
    assert comparable_text("{oh") == "{oh"
    assert (
        comparable_text(NASTY["more digits than Python converts"])
        == NASTY["more digits than Python converts"]
    )


def test_frequent_characters_of_long_code_are_no_junk():
    a = "".join(f"x{n} = {n} + y\n" for n in range(40))
    b = "".join(f"z{n} = {n} * y\n" for n in range(40))
    assert code_ratio(a, b).value == stdlib(a, b) > difflib.SequenceMatcher(None, a, b).ratio() + 0.1
