"""Outputs: layout does not count, values do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.rewards.printed import same_output


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("1 2\n3\n", "1 2 \n3"), ("1  2", "1 2"), ("  1\n", "1"), ("1\r\n2", "1\n2"), ("2.0", "2"), ("2", "2.0"),
        ("0.333333333333", "0.33333333"), ("1000000.5", "1000000.4999"), ("1e-7", "0.0"), ("-0", "0"), ("007", "7"),
        ("YES", "YES"), ("", ""), ("1.5e3", "1500"),
    ],
)  # fmt: skip
def test_these_are_the_same(printed: str, expected: str) -> None:
    assert same_output(printed, expected)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("1\n2", "1 2"), ("1 2", "12"), ("3", "4"), ("yes", "YES"), ("1000001", "1000000"), ("0.3334", "0.3333"),
        ("", "1"),
        ("1 2 3", "1 2"), ("1\n\n2", "1\n2"), ("nan", "1.0"), ("1e999", "1.0"), ("9" * 5000, "1" + "0" * 5000),
        ("1_0", "10"), ("0x10", "16"), ("2.0000001", "2"), ("inf", "1e999"), ("\u0661", "1.0"),
    ],
)  # fmt: skip
def test_these_are_not(printed: str, expected: str) -> None:
    assert not same_output(printed, expected)


@given(st.lists(st.lists(st.integers(), min_size=1), min_size=1))
def test_numbers_in_lines_are_the_same_however_they_are_spaced(rows: list[list[int]]) -> None:
    expected = "\n".join(" ".join(map(str, row)) for row in rows)
    assert same_output("\n".join("  ".join(map(str, row)) + " " for row in rows) + "\n\n", expected)
    assert not same_output(expected + "\n1", expected)
