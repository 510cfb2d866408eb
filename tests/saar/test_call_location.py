"""Calls are found by token, whichever way the text is cut into tokens."""

import re
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cleaner.saar.call_location import CallMarkers, find_regions

MARKERS = CallMarkers("<call>", "</call>")
bits = st.sampled_from(["<call>", "</call>", "<", "call>", "</", "x", "\n", "é", "😀", "中"])


@given(text=st.lists(bits, max_size=12).map("".join), cuts=st.lists(st.floats(0, 1), max_size=10))
def test_regions_are_those_of_a_pattern_on_the_text_however_it_is_cut(text, cuts):
    data = text.encode()
    edges = sorted({0, len(data), *(int(cut * len(data)) for cut in cuts)})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    regions = find_regions(range(len(pieces)), MARKERS, pieces.__getitem__)
    expected = list(re.finditer(rb"<call>(.*?)(</call>|\Z)", data, re.DOTALL))
    assert len(regions) == len(expected)
    for region, match in zip(regions, expected, strict=True):
        start = len(b"".join(pieces[: region.start]))
        assert start + len(region.lead) == match.start()
        assert len(region.lead) < len(pieces[region.start])
        assert region.closed == bool(match.group(2))
        stop = len(b"".join(pieces[: region.stop]))
        assert stop - len(region.tail) == match.end()
        assert region.body == match.group(1).split(b"<call>")[-1].decode("utf-8", "replace")


@given(ids=st.lists(st.sampled_from([0, 1, 2, 3]), max_size=14))
def test_marker_tokens_are_found_like_their_text(ids):
    pieces = [b"<call>", b"</call>", b"x", b"<"]
    by_id = CallMarkers("<call>", "</call>", start_id=0, end_id=1)
    assert find_regions(ids, by_id, pieces.__getitem__) == find_regions(ids, MARKERS, pieces.__getitem__)


def test_a_turn_full_of_calls_takes_one_pass():
    ids = [0, 1] * 20_000
    by_id = CallMarkers("<call>", "</call>", start_id=0, end_id=1)
    begin = time.perf_counter()
    regions = find_regions(ids, by_id, [b"<call>", b"</call>"].__getitem__)
    assert [(region.start, region.stop) for region in regions] == [(i, i + 2) for i in range(0, 40_000, 2)]
    # Two passes for every call, as it once was, take two seconds.
    assert time.perf_counter() - begin < 0.5


def test_a_long_turn_takes_one_pass():
    ids = list(range(40_000))
    pieces = [b"word "] * 39_990 + [b"<ca", b"ll>", b"{}", b"</call>", b"."] + [b" "] * 5
    begin = time.perf_counter()
    (region,) = find_regions(ids, MARKERS, pieces.__getitem__)
    assert (region.start, region.stop, region.body) == (39_990, 39_994, "{}")
    assert time.perf_counter() - begin < 0.5
