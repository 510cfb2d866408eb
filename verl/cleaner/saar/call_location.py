"""Where the tool calls of a turn are, in tokens.

A call is a region between two markers (`<tool_call>`, `</tool_call>`). Where the tokenizer has the markers as tokens,
their ids are looked for; else their bytes, in one pass over the bytes of all tokens, so that neither a marker nor a
Unicode character that is split over tokens is missed, and nothing is decoded twice. A region is only a *candidate*: the
marker may just be mentioned. Which candidates are calls is for the tool parser to say (`cleaner.turn_calls`).
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class CallMarkers:
    """The markers of a tool-call format.

    Attributes:
        start, end: their text.
        start_id, end_id: their ids where the tokenizer has each of them as one token, else None.
    """

    start: str
    end: str
    start_id: int | None = None
    end_id: int | None = None


@dataclass(frozen=True)
class Region:
    """A candidate call: tokens [start, stop) of a turn.

    Attributes:
        start: index of the token in which the start marker begins.
        inner_start: likewise for the last start marker in the region: where the call begins if the earlier ones
            were only mentioned. Equal to `start` almost always.
        stop: one past the token in which the end marker ends, or past the last token if the region is not closed.
        lead: bytes of the first token that lie before the marker (a token may straddle it); `inner_lead` likewise.
        tail: bytes of the last token that lie behind the end marker.
        closed: whether there is an end marker.
        body: text between the (innermost) start marker and the end.
    """

    start: int
    inner_start: int
    stop: int
    lead: bytes
    inner_lead: bytes
    tail: bytes
    closed: bool
    body: str


def find_regions(
    ids: Sequence[int], markers: CallMarkers, token_bytes: Callable[[int], bytes]
) -> list[Region]:
    """Candidate calls in `ids`, in order, without overlap: each from a start marker to the next end marker.

    Args:
        ids: tokens of one assistant turn.
        token_bytes: the bytes that a token stands for.
    """
    if markers.start_id is not None and markers.end_id is not None and markers.start_id in ids:
        return _find_by_id(ids, markers.start_id, markers.end_id, token_bytes)
    return _find_by_bytes(ids, markers, token_bytes)


def _find_by_id(
    ids: Sequence[int], start_id: int, end_id: int, token_bytes: Callable[[int], bytes]
) -> list[Region]:
    regions = []
    ids = list(ids)
    start = _index(ids, start_id, 0)
    while start is not None:
        end = _index(ids, end_id, start)
        last = len(ids) if end is None else end
        inner = last - 1 - ids[start:last][::-1].index(start_id)
        body = b"".join(map(token_bytes, ids[inner + 1 : last])).decode("utf-8", "replace")
        stop = len(ids) if end is None else end + 1
        regions.append(Region(start, inner, stop, b"", b"", b"", end is not None, body))
        start = _index(ids, start_id, stop)
    return regions


def _index(ids: list[int], token: int, start: int) -> int | None:
    try:
        return ids.index(token, start)
    except ValueError:
        return None


def _find_by_bytes(
    ids: Sequence[int], markers: CallMarkers, token_bytes: Callable[[int], bytes]
) -> list[Region]:
    pieces = list(map(token_bytes, ids))
    text = b"".join(pieces)
    start_marker, end_marker = markers.start.encode(), markers.end.encode()
    if start_marker not in text:
        return []
    # offsets[i] is where token i begins; a token without bytes begins where its successor does.
    offsets = [0, *accumulate(map(len, pieces))]

    def token_at(offset: int) -> int:
        return bisect_right(offsets, offset) - 1

    regions = []
    position = text.find(start_marker)
    while position >= 0:
        end = text.find(end_marker, position + len(start_marker))
        closed = end >= 0
        body_end = end if closed else len(text)
        text_end = end + len(end_marker) if closed else len(text)
        inner = text.rfind(start_marker, position, body_end)
        start, inner_token = token_at(position), token_at(inner)
        stop = token_at(text_end - 1) + 1 if closed else len(ids)
        regions.append(
            Region(
                start=start,
                inner_start=inner_token,
                stop=stop,
                lead=text[offsets[start] : position],
                inner_lead=text[offsets[inner_token] : inner],
                tail=text[text_end : offsets[stop]],
                closed=closed,
                body=text[inner + len(start_marker) : body_end].decode("utf-8", "replace"),
            )
        )
        position = text.find(start_marker, text_end)
    return regions
