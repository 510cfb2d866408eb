"""Untrusted text can neither drive a terminal nor hide in it."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cleaner.report.visible_text import shorten, visible


@given(st.text(alphabet=st.characters()))
def test_no_character_that_a_terminal_obeys_survives(text: str) -> None:
    shown = visible(text)
    categories = {
        unicodedata.category(character) for character in shown if character not in "\n\t\u200c\u200d"
    }
    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
    shown.encode("utf-8")


@given(st.text())
def test_what_is_visible_stays_as_it_is(text: str) -> None:
    assert visible(visible(text)) == visible(text)


def test_plain_text_of_any_script_is_unchanged() -> None:
    for text in ("def f(x):\n\treturn x", "größer ≥ 5", "数学", "नमस्ते", "👩‍🔬"):
        assert visible(text) == text


def test_an_escape_sequence_is_shown() -> None:
    assert visible("\x1b[31mred\x07\r\n\x9b2J\u202eabc\ud800") == "␛[31mred␇\n\\x9b2J\\u202eabc\\ud800"


def test_long_text_keeps_head_and_tail_and_says_what_is_cut() -> None:
    assert shorten("\n".join("abcdefgh"), 4) == "a\nb\n… (4 more lines) …\ng\nh"
    assert shorten("x" * 30, 4, columns=10) == "x" * 10 + " … (+20)"
    assert shorten("short", 4) == "short"
