"""Bounded capture agrees with the unbounded definition, however the stream is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.capture import Capture, Match

TEXT = st.text(alphabet=" \n\tabé\u2003", max_size=30)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(TEXT, TEXT, st.lists(st.integers(0, 100), max_size=6), st.booleans())
def test_match_is_equality_of_stripped_texts(output: str, other: str, cuts: list[int], same: bool) -> None:
    expected = f" {output}\n" if same else other
    capture = Capture(10, match := Match(expected))
    for piece in _pieces(output.encode(), cuts):
        capture.feed(piece)
    capture.feed(b"", final=True)
    assert match.matched is (output.strip() == expected.strip())


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6), st.integers(1, 200))
def test_capture_keeps_short_output_whole_and_long_output_within_the_limit(
    data: bytes, cuts: list[int], limit: int
) -> None:
    capture = Capture(limit)
    for piece in _pieces(data, cuts):
        capture.feed(piece)
    capture.feed(b"", final=True)
    whole = data.decode(errors="replace")
    if len(whole) <= limit:
        assert capture.text() == whole
    else:
        assert len(capture.text()) <= limit
        assert capture.text()[0] == whole[0]
        assert "left out" not in capture.text() or capture.text()[-1] == whole[-1]
