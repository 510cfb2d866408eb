"""The calls of an assistant turn, located in its tokens, calls that do not parse included.

verl's tool parsers say which calls they could parse, but neither where these are nor that something which was meant as
a call did not parse. Both are found here by giving the parser one candidate region at a time: where it finds a call,
that region is the call, and a marker that is only mentioned in the reasoning is none.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser

from cleaner.saar.call_location import CallMarkers, Region, find_regions
from cleaner.saar.graft import CallSpan
from cleaner.saar.outcome import FORMAT_ERROR, ToolOutcome
from cleaner.saar.similarity import code_of, comparable_text
from cleaner.token_bytes import token_bytes_of

# Attributes under which verl's parsers keep their markers; a section holds all calls of a turn.
_MARKER_ATTRIBUTES = (
    ("tool_calls_section_start_token", "tool_calls_section_end_token"),
    ("tool_calls_start_token", "tool_calls_end_token"),
    ("tool_call_start_token", "tool_call_end_token"),
)
# How the body of a call begins in the formats that verl parses.
_BODY_BEGINS = re.compile(r"""\{\s*["']|<function|<invoke|<arg_key>|call:\w""")
_NAME = re.compile(r'"name"\s*:\s*"([^"]*)"|<(?:function=|invoke name=")([^">\n]+)')


@dataclass(frozen=True)
class TurnCall:
    """One call of a turn.

    Attributes:
        call: what the parser made of it; of a call that did not parse, its raw text as arguments.
        span: its tokens, None if they could not be located.
        problem: why it did not parse, None if it did.
    """

    call: FunctionCall
    span: CallSpan | None
    problem: str | None = None

    @property
    def code(self) -> str | None:
        return code_of(self.call.arguments)

    @property
    def comparable(self) -> str:
        return comparable_text(self.call.arguments)

    def format_outcome(self) -> ToolOutcome:
        """Outcome of a call that did not parse."""
        return ToolOutcome(FORMAT_ERROR, text=f"Invalid tool call: {self.problem}")


class TurnReader:
    """Finds the calls of turns, for one tool parser and tokenizer."""

    def __init__(self, parser: ToolParser, tokenizer: Any) -> None:
        self._parser = parser
        self._tokenizer = tokenizer

    @cached_property
    def _token_bytes(self) -> Callable[[int], bytes]:
        return token_bytes_of(self._tokenizer)

    @cached_property
    def _markers(self) -> CallMarkers | None:
        """None for a parser that does not say its markers (gpt-oss, custom ones): its calls cannot be located."""
        for names in _MARKER_ATTRIBUTES:
            start, end = (getattr(self._parser, name, None) for name in names)
            if isinstance(start, str) and isinstance(end, str):
                return CallMarkers(start, end, self._single_token(start), self._single_token(end))
        return None

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(getattr(self._tokenizer, "all_special_ids", ()))

    def _single_token(self, marker: str) -> int | None:
        token = self._tokenizer.convert_tokens_to_ids(marker)
        if not isinstance(token, int) or token < 0 or token == getattr(self._tokenizer, "unk_token_id", None):
            return None
        return token if self._tokenizer.convert_ids_to_tokens(token) == marker else None

    def surely_sound(self, ids: list[int], parsed: Sequence[FunctionCall]) -> bool:
        """Whether it is plain at a glance that a turn holds the one call in `parsed`, none broken. False says nothing.

        So it is if there is one call and one end marker, and nothing but one token (the end of the turn) follows it.
        Several calls are looked at closely: in some formats one region holds several, so that markers and calls that
        are equal in number prove nothing.
        """
        markers = self._markers
        if len(parsed) != 1 or markers is None or markers.end_id is None:
            return False
        return markers.end_id in ids[-2:] and ids.count(markers.end_id) == 1

    async def read(
        self, ids: Sequence[int], parsed: Sequence[FunctionCall], tools: list[Any]
    ) -> list[TurnCall]:
        """The calls of a turn in order: those in `parsed`, and those that were meant as calls but did not parse.

        Args:
            ids: tokens of the turn.
            parsed: what the tool parser found in the whole turn. Always all contained in the answer, in order.
            tools: schemas of the available tools, for the parser.
        """
        markers = self._markers
        if markers is None:
            return [TurnCall(call, None) for call in parsed]
        by_bytes = CallMarkers(markers.start, markers.end)
        for variant in (markers, by_bytes) if markers.start_id is not None else (by_bytes,):
            calls = await self._match(
                ids, find_regions(ids, variant, self._token_bytes), parsed, tools, variant
            )
            if calls is not None:
                return calls
        return [TurnCall(call, None) for call in parsed]

    async def _match(
        self,
        ids: Sequence[int],
        regions: Sequence[Region],
        parsed: Sequence[FunctionCall],
        tools: list[Any],
        markers: CallMarkers,
    ) -> list[TurnCall] | None:
        """Assign `parsed` to `regions`; None if the regions, parsed one by one, do not give the same calls."""
        found: list[TurnCall] = []
        remaining = list(parsed)
        for region in regions:
            if len(regions) == 1:
                here = list(parsed)
            elif parsed:
                _, here = await self._parser.extract_tool_calls(list(ids[region.start : region.stop]), tools)
            else:
                here = []
            if [_key(call) for call in here] != [_key(call) for call in remaining[: len(here)]]:
                return None
            span = CallSpan(region.start, region.stop, region.lead, region.tail)
            found += [TurnCall(call, span) for call in remaining[: len(here)]]
            del remaining[: len(here)]
            if not here and self._meant_as_call(ids, region):
                found.append(_unparsed(region, markers))
        return None if remaining else found

    def _meant_as_call(self, ids: Sequence[int], region: Region) -> bool:
        """Whether a region that does not parse is a broken call, and not a mention of the markers.

        It is one if it begins like a call, or if it is closed, not empty, and nothing comes after it.
        """
        body = region.body.strip()
        if not body or _BODY_BEGINS.match(body):
            return bool(body)
        if not region.closed or region.tail.strip():
            return False
        special = self._special_ids
        return all(token in special or not self._token_bytes(token).strip() for token in ids[region.stop :])


def _key(call: FunctionCall) -> tuple[str, str]:
    return call.name, call.arguments


def _unparsed(region: Region, markers: CallMarkers) -> TurnCall:
    name = _NAME.search(region.body)
    call = FunctionCall(
        name=next((group for group in name.groups() if group), "unknown") if name else "unknown",
        arguments=region.body.strip(),
    )
    span = CallSpan(region.inner_start, region.stop, region.inner_lead, region.tail)
    return TurnCall(call, span, _describe_problem(region, markers))


def _describe_problem(region: Region, markers: CallMarkers) -> str:
    if not region.closed:
        return f"missing {markers.end}"
    if region.inner_start != region.start:
        return f"{markers.start} appears twice before {markers.end}"
    body = region.body.strip()
    if not body.startswith("{"):
        return f"no call could be parsed between {markers.start} and {markers.end}"
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    except RecursionError:
        return "not valid JSON: nested too deeply"
    missing = [key for key in ("name", "arguments") if key not in content]
    return f'missing "{missing[0]}"' if missing else "name must be a text and arguments an object"
