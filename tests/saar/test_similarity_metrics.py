"""What counts and what does not, metric by metric."""

import ast
import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar.metrics.lexemes import lexemes
from cleaner.saar.metrics.tree import MAX_CHARS, tree_labels
from cleaner.saar.metrics.words import words
from cleaner.saar.similarity import similarity

PROGRAM = """import math


def total(numbers):
    found = 0
    for number in numbers:
        if number > 1:
            found += math.sqrt(number)
    return found


print(total([1, 2, 3]))
"""
OTHER = 'from collections import Counter\nwords = "a b a".split()\nprint(Counter(words).most_common(1)[0])\n'


def compare(metric, failed, accepted):
    """Arguments as objects, or as raw text."""
    calls = [value if isinstance(value, str) else json.dumps(value) for value in (failed, accepted)]
    found = similarity(calls[:1], calls[1:], 0.5, metric)
    assert found.exact
    return found.value


def code(metric, failed, accepted):
    return compare(metric, {"code": failed}, {"code": accepted})


# token


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x1 = 0x1F + 1_000.5e-3j", ["x1", "=", "0x1F", "+", "1_000.5e-3j"]),
        ("a**=b//c>>1 != d->e", ["a", "**=", "b", "//", "c", ">>", "1", "!=", "d", "->", "e"]),
        ("f'a\\'b' + rb\"c\" # d 'e'\n'f'", ["f'a\\'b'", "+", 'rb"c"', "'f'"]),
        ("'''a\n'b''' \"\"\"\n#c\"\"\"", ["'''a\n'b'''", '"""\n#c"""']),
        ("'never closed\nx", ["'never closed", "x"]),
        ("'''never closed\nx", ["'''never closed\nx"]),
        ("a \\\n b", ["a", "b"]),
        ("größe = 数", ["größe", "=", "数"]),
        ("if (x) { y++; } $z", ["if", "(", "x", ")", "{", "y", "+", "+", ";", "}", "$", "z"]),
        ("", []),
    ],
)
def test_lexemes_are_pythons_tokens_and_tolerant_of_what_is_no_python(text, expected):
    assert lexemes(text) == expected


def test_white_space_and_comments_do_not_count_as_tokens():
    spaced = PROGRAM.replace("    ", "  ").replace(" = ", "=").replace("\n\n\n", "\n# next\n")
    assert code("token", spaced, PROGRAM) == 1.0
    assert code("difflib", spaced, PROGRAM) < 1.0


def test_one_wrong_token_is_one_token_however_long():
    assert code("token", "x = aaaaaaaaaaaaaaaaaaaaaaaa", "x = b") == pytest.approx(2 * 2 / 6)


def test_code_that_does_not_parse_is_compared_by_token():
    assert 0.9 < code("token", PROGRAM.replace("sqrt(number)", "sqrt(number"), PROGRAM) < 1


# ast


def test_formatting_comments_and_superfluous_parentheses_do_not_count_in_the_tree():
    written = (
        PROGRAM.replace("number > 1", "(number) > (1)")
        .replace("    ", "\t")
        .replace("[1, 2, 3]", "[1,2,\n3,]")
    )
    assert code("ast", "# sum\n" + written, PROGRAM) == 1.0
    assert code("token", written, PROGRAM) < 1.0
    assert code("ast", "x = 'a'", 'x = "a"') == 1.0


def test_names_count_in_the_tree_a_little():
    renamed = PROGRAM.replace("found", "result")
    assert 0.8 < code("ast", renamed, PROGRAM) < 1.0


def test_nesting_counts_in_the_tree():
    inside, outside = "while a:\n    b()\n    c()", "while a:\n    b()\nc()"
    assert code("token", inside, outside) == 1.0 > code("ast", inside, outside)


def test_unrelated_programs_have_unlike_trees():
    assert code("ast", OTHER, PROGRAM) < 0.3


@pytest.mark.parametrize(
    "broken", ["print(1", "x = 1\0", "(" * 300, "'\ud800", "-" * 9_999 + "1", "x = 1\n" * MAX_CHARS]
)
def test_where_a_side_does_not_parse_the_tree_gives_way_to_tokens(broken):
    assert tree_labels(broken) is None
    calls = [json.dumps({"code": broken})], [json.dumps({"code": PROGRAM})]
    for pair in (calls, calls[::-1]):
        assert similarity(*pair, 0.5, "ast") == similarity(*pair, 0.5, "token")


# Pairs of programs with the same tokens or nodes in another structure.
DIFFERENT = [
    ("def f(a, *, b): 0", "def f(a, b): 0"),
    ("def f(*a): 0", "def f(a): 0"),
    ("def f(x: int): 0", "def f(x=int): 0"),
    ("def f(a, b=1): 2; 3", "def f(a=1, b=2): 3"),
    ("@x\ndef f(): 0", "def f() -> x: 0"),
    ("a[1:]", "a[:1]"),
    ("f(a)(b)", "f()(a, b)"),
    ("f(g(x), y=1)", "f(g(x, y=1))"),
    ("f(*a)", "f(**a)"),
    ("[[1, 2], 3]", "[[1], 2, 3]"),
    ("[a for a in b if c], d", "[a for a in b], c, d"),
    ("{1: 2, 3: 4}", "{1: 3, 2: 4}"),
    ("{**a}", "{None: a}"),
    ("a < b < c", "(a < b) < c"),
    ("a + b", "a - b"),
    ("x = 1", "x = True"),
    ("x = 1", "x = 1.0"),
    ("x = '1'", "x = 1"),
    ("x = '1'", "x = b'1'"),
    ("a = b = c", "a, b = c"),
    ("with a as b: 0", "with a, b: 0"),
    ("try:\n a\nfinally:\n b", "try:\n a\nexcept:\n b"),
    ("for a in b:\n c\nelse:\n d", "for a in b:\n c\nd"),
    ("import a as b", "import a, b"),
    ("from . import a", "from .. import a"),
    ("global a", "nonlocal a"),
    ("pass", "break"),
    ("f'{a}'", "f'{a!r}'"),
    ("match x:\n case [*a]: 0", "match x:\n case [a]: 0"),
    ("match x:\n case a if b: 0", "match x:\n case a: b; 0"),
]


@pytest.mark.parametrize("one, other", DIFFERENT)
def test_programs_that_mean_different_things_have_different_trees(one, other):
    assert tree_labels(one) != tree_labels(other)
    assert code("ast", one, other) < 1.0


def test_python_written_anew_from_its_tree_has_the_same_labels():
    folder = Path(ast.__file__).parent
    for path in (
        folder / name for name in ("bisect.py", "dataclasses.py", "textwrap.py", "asyncio/taskgroups.py")
    ):
        parts = ast.parse(path.read_text()).body
        texts = [ast.unparse(part) for part in parts]
        assert any(texts)
        for part, text in zip(parts, texts, strict=True):
            source = ast.get_source_segment(path.read_text(), part) or ""
            if len(source) <= MAX_CHARS and ast.dump(ast.parse(text)) == ast.dump(ast.parse(source)):
                assert tree_labels(source) == tree_labels(text)


def test_the_models_code_puts_no_warnings_on_the_log():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"<compared\ code>")
        assert tree_labels("print('\\d')") == ["Call 1", "Name print", "Constant str \\d"]
    assert caught == []


# json


def test_order_of_keys_and_in_lists_does_not_count():
    one = {"a": 1, "b": {"c": [1, "x", None], "d": True}}
    other = {"b": {"d": True, "c": ["x", None, 1]}, "a": 1.0}
    assert compare("json", one, other) == 1.0
    assert compare("difflib", one, other) < 1.0
    assert compare("json", '{"a": NaN, "b": Infinity}', '{"b": Infinity, "a": NaN}') == 1.0
    assert compare("json", '{"a": NaN, "b": Infinity}', '{"b": 1, "a": 1}') == pytest.approx(0.2)


def test_the_path_alone_makes_no_likeness():
    assert compare(
        "json", {"query": "weather in Rome"}, {"query": "largest prime below 1000"}
    ) == pytest.approx(0.2)
    assert compare("difflib", {"query": "weather in Rome"}, {"query": "largest prime below 1000"}) > 0.5


def test_defaults_do_not_drown_the_query():
    one = {"query": "weather in Rome tomorrow", "limit": 5}
    assert compare("json", one, {"query": "largest prime below 1000", "limit": 5}) < 0.5


@pytest.mark.parametrize(
    "failed, accepted, least, most",
    [
        ({"resource": "elemnts"}, {"resource": "elements"}, 0.9, 0.99),  # a misspelt value
        ({"ressource": "elements"}, {"resource": "elements"}, 0.5, 0.5),  # a misspelt key
        ({"r": "elements", "limit": "5"}, {"r": "elements", "limit": 5}, 0.8, 0.95),  # another type
        ({"r": "elements", "fields": "name"}, {"r": "elements", "fields": ["name"]}, 0.7, 0.8),
        ({"r": "elements", "limit": 9}, {"r": "elements", "limit": 10}, 0.9, 0.99),  # a near number
        ({"r": "elements", "limit": 9}, {"r": "elements", "limit": -9}, 0.7, 0.9),  # a far one
        ({"r": "elements"}, {"r": "elements", "limit": 10}, 0.7, 0.9),  # one missing
        ({"r": "elements", "f": {"a": 1}}, {"r": "elements", "f": {"b": {"a": 1}}}, 0.7, 0.95),  # moved
        (
            {"resource": "planets", "fields": ["mass"]},
            {"resource": "elements", "filters": {"symbol": "Fe"}},
            0,
            0.4,
        ),
        ({"a": 1}, {"a": True}, 0.0, 0.21),
        ({}, {"a": 1}, 0.0, 0.0),
        ({"a": {}}, {"a": []}, 0.0, 0.21),
    ],
)
def test_partial_credit(failed, accepted, least, most):
    for pair in ((failed, accepted), (accepted, failed)):
        assert least <= compare("json", *pair) <= most


leaf = st.one_of(st.integers(-99, 99), st.text("abC.é", max_size=6))


@given(given=st.dictionaries(st.text(max_size=3), leaf, min_size=1, max_size=5), changed=leaf)
def test_each_changed_value_takes_some_likeness(given, changed):
    key = sorted(given)[0]
    other = {**given, key: changed}
    assert (compare("json", given, other) == 1.0) == (given == other)


def test_a_call_in_its_wrapper_is_compared_without_it():
    inner = {"resource": "elements", "filters": {"symbol": "Fe"}}
    assert compare("json", {"name": "lookup", "arguments": inner}, inner) == 1.0
    assert compare("json", {"name": "lookup", "arguments": json.dumps(inner)}, inner) == 1.0
    assert compare("text", {"name": "lookup", "arguments": inner}, inner) == 1.0


@pytest.mark.parametrize("metric", ["json", "text"])
def test_a_call_that_is_no_json_is_compared_by_its_words_without_its_wrapper(metric):
    inner = {"resource": "elements", "filters": {"symbol": "F\u00e9"}}
    broken = json.dumps({"name": "lookup", "arguments": inner})[:-2]
    assert compare(metric, broken, inner) == 1.0
    assert compare(metric, broken, {"resource": "planets", "fields": ["mass"]}) < 0.5


def test_calls_are_compared_one_by_one():
    one, two = json.dumps({"a": "x"}), json.dumps({"a": "yyyyyyy"})
    assert similarity([one, two], [one, two], 0.5, "json").value == 1.0
    assert similarity([two, one], [one, two], 0.5, "json").value < 0.6
    assert similarity([one], [one, two], 0.5, "json").value < 0.6


# text


@pytest.mark.parametrize(
    "text, expected",
    [
        ("  The\tquick\n\nFOX ", ["the", "quick", "fox"]),
        ("Straße ΣΊΣΥΦΟΣ", ["strasse", "σίσυφοσ"]),
        ("cafe\u0301", ["café"]),
        ("C++ ≠ C#", ["c", "+", "+", "≠", "c", "#"]),
        ("罗马的天气 ok ひらカナ", ["罗", "马", "的", "天", "气", "ok", "ひ", "ら", "カ", "ナ"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("x2 3.5", ["x2", "3", ".", "5"]),
        ("\ud800\0", ["\ud800", "\0"]),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_case_white_space_and_names_of_arguments_do_not_count_in_text():
    assert compare("text", {"query": "Weather  in\nRome", "z": 3}, {"q": "weather in rome", "s": 3}) == 1.0


def test_words_are_compared_in_order():
    assert compare("text", {"q": "a b c d"}, {"q": "a b x d"}) == 0.75
    assert compare("text", {"q": "a b c d"}, {"q": "d c b a"}) == 0.25
    assert compare("text", {"q": "one two"}, {"q": "three four"}) == 0.0


def test_values_are_read_in_the_order_of_their_keys():
    assert compare("text", {"b": "two", "a": ["one", {"x": None}]}, {"a": "one null", "b": "two"}) == 1.0
