"""Milliseconds to find a turn's call in its tokens and to graft another one there, against decoding growing prefixes.

    python benchmarks/call_location.py
    python benchmarks/call_location.py --tokenizer DIR --tokens 8000

A turn is reasoning and one call at its end; the history before it has `--history` tokens. "ours" is `TurnReader.read`
(locate) and `Trajectory.splice` (graft). The alternative decodes ever longer prefixes of the turn until the start
marker appears, and cuts there: simple, and quadratic. The floor is one search: `list.index` of the marker's id where
the tokenizer has the marker as a token; else joining the tokens' bytes and searching these.

Two tokenizers: the quick start's, which has the markers as tokens, and the same without them. Median and worst of
`--repeat` rounds, in which ours and the floor alternate; the alternative takes so long that it runs `--slow-repeat`
times. All run on the caller's thread, so a round that another process interrupts shows up in the worst.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripted_rollout import FAILING, SENTENCE, SOUND, TOKENIZER, call_text
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from verl.experimental.agent_loop.tool_parser import FunctionCall, HermesToolParser

from cleaner.saar.trajectory import Origin, Piece, Trajectory
from cleaner.token_bytes import token_bytes_of
from cleaner.turn_calls import TurnReader

START, END = "<tool_call>", "</tool_call>"
# Milliseconds at `GOAL_TOKENS` tokens, by whether the markers are tokens.
GOALS = {True: 1.0, False: 10.0}
GOAL_TOKENS = 8000


def load_tokenizer(folder: Path, *, marker_tokens: bool) -> PreTrainedTokenizerFast:
    """The tokenizer in `folder`; without `marker_tokens`, the markers are taken out of it."""
    description = json.loads((folder / "tokenizer.json").read_text())
    if not marker_tokens:
        added = description["added_tokens"]
        description["added_tokens"] = [token for token in added if token["content"] not in (START, END)]
        for marker in (START, END):
            description["model"]["vocab"].pop(marker, None)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(description)))
    tokenizer.model_max_length = 10**9  # no warning about lengths that a small model could not take
    return tokenizer


class Case:
    """One turn with a call at its end, another call to put in its place, and the history before.

    Args:
        tokens: length of the turn; `history`: of the response before it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens: int, history: int) -> None:
        self.tokenizer = tokenizer
        self.reader = TurnReader(HermesToolParser(tokenizer), tokenizer)
        self.call = tokenizer.encode(call_text(FAILING), add_special_tokens=False)
        self.other = tokenizer.encode(call_text(SOUND), add_special_tokens=False)
        if tokens <= len(self.call):
            raise SystemExit(f"a turn of {tokens} tokens cannot hold a call of {len(self.call)}")
        reasoning = tokenizer.encode(SENTENCE * (tokens // 8), add_special_tokens=False)
        self.ids = reasoning[: tokens - len(self.call)] + self.call
        self.history = (reasoning * (1 + history // len(reasoning)))[:history]
        arguments = json.dumps({"code": FAILING})
        self.parsed = [FunctionCall(name="code_interpreter", arguments=arguments)]
        marker = tokenizer.convert_tokens_to_ids(START)
        self.marker = marker if marker in self.ids else None
        lookup = token_bytes_of(tokenizer)
        self.bytes = {token: lookup(token) for token in self.ids}
        self.expected = self.history + self.ids[: -len(self.call)] + self.other

    def trajectory(self) -> Trajectory:
        trajectory = Trajectory()
        before = Piece(self.history, Origin.OBSERVATION)
        turn = Piece(self.ids, Origin.SAMPLED, [-0.5] * len(self.ids))
        trajectory.splice(0, 0, [before, turn])
        return trajectory

    def ours(self) -> tuple[float, float]:
        """Seconds to locate and to graft."""
        trajectory = self.trajectory()
        logprobs = [-0.5] * len(self.ids)
        begin = time.perf_counter()
        (call,) = _finish(self.reader.read(self.ids, self.parsed, []))
        located = time.perf_counter()
        start = len(self.history)
        kept = Piece(self.ids[: call.span.start], Origin.SAMPLED, logprobs[: call.span.start])
        graft = Piece(self.other, Origin.GRAFTED, [-0.25] * len(self.other))
        trajectory.splice(start, len(trajectory), [kept, graft])
        grafted = time.perf_counter()
        if trajectory.ids != self.expected:
            raise AssertionError("ours put the call at the wrong place")
        return located - begin, grafted - located

    def growing_prefixes(self) -> float:
        """Seconds of the alternative: locate by decoding growing prefixes, then cut the lists."""
        ids, mask = self.history + self.ids, [0] * len(self.history) + [1] * len(self.ids)
        logprobs = [0.0] * len(self.history) + [-0.5] * len(self.ids)
        begin = time.perf_counter()
        end = next(n for n in range(1, len(self.ids) + 1) if START in self.tokenizer.decode(self.ids[:n]))
        # The prefix ends with the marker; the call begins where a decoded tail first holds all of it.
        start = next(n for n in range(end - 1, -1, -1) if START in self.tokenizer.decode(self.ids[n:end]))
        cut = len(self.history) + start
        ids = ids[:cut] + self.other
        mask = mask[:cut] + [1] * len(self.other)
        logprobs = logprobs[:cut] + [-0.25] * len(self.other)
        seconds = time.perf_counter() - begin
        if ids != self.expected or not len(ids) == len(mask) == len(logprobs):
            raise AssertionError("the alternative put the call at the wrong place")
        return seconds

    def floor(self) -> float:
        """Seconds of one search for the start marker."""
        begin = time.perf_counter()
        if self.marker is not None:
            self.ids.index(self.marker)
        else:
            table = self.bytes
            b"".join([table[token] for token in self.ids]).find(START.encode())
        return time.perf_counter() - begin


def _finish(coroutine: Any) -> Any:
    """Result of a coroutine that waits for nothing, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        return result.value
    raise AssertionError("locating the one call of a turn waits for something")


def check_parser(case: Case) -> None:
    """The call that `Case` says was parsed is what verl's parser finds in the turn."""
    _, parsed = asyncio.run(HermesToolParser(case.tokenizer).extract_tool_calls(case.ids))
    if parsed != case.parsed:
        raise AssertionError("verl's parser found other calls in the turn")


def rounds(count: int, *actions: Callable[[], Any]) -> list[list[Any]]:
    results: list[list[Any]] = [[] for _ in actions]
    for _ in range(count):
        for action, values in zip(actions, results, strict=True):
            values.append(action())
    return results


def measure(case: Case, repeat: int, slow_repeat: int) -> dict[str, Any]:
    """Milliseconds of one case."""
    check_parser(case)
    case.ours()
    ours, floor = rounds(repeat, case.ours, case.floor)
    (slow,) = rounds(slow_repeat, case.growing_prefixes)
    totals = [1e3 * (locate + graft) for locate, graft in ours]
    median = statistics.median(totals)
    return {
        "tokens": len(case.ids),
        "marker_tokens": case.marker is not None,
        "locate_ms": 1e3 * statistics.median(locate for locate, _ in ours),
        "graft_ms": 1e3 * statistics.median(graft for _, graft in ours),
        "ours_ms": median,
        "worst_ms": max(totals),
        "floor_ms": 1e3 * statistics.median(floor),
        "prefixes_ms": 1e3 * statistics.median(slow),
        "ratio": 1e3 * statistics.median(slow) / median,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 1000, 4000, 8000])
    parser.add_argument("--history", type=int, default=8000, help="response tokens before the turn")
    parser.add_argument("--repeat", type=int, default=101)
    parser.add_argument("--slow-repeat", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="folder with a tokenizer.json")
    arguments = parser.parse_args(argv)

    print(f"{'tokens':>7} {'marker':>7} {'locate ms':>10} {'graft ms':>9} {'ours ms':>8} {'worst ms':>9} "
          f"{'floor ms':>9} {'prefixes ms':>12} {'ratio':>8}")  # fmt: skip
    rows, goals = [], []
    for marker_tokens in (True, False):
        tokenizer = load_tokenizer(arguments.tokenizer, marker_tokens=marker_tokens)
        for tokens in arguments.tokens:
            row = measure(Case(tokenizer, tokens, arguments.history), arguments.repeat, arguments.slow_repeat)
            rows.append(row)
            print("{tokens:>7} {0:>7} {locate_ms:>10.3f} {graft_ms:>9.3f} {ours_ms:>8.3f} {worst_ms:>9.3f} "
                  "{floor_ms:>9.3f} {prefixes_ms:>12.1f} {ratio:>7.0f}x".format(
                      "token" if row["marker_tokens"] else "bytes", **row), flush=True)  # fmt: skip
            if tokens == GOAL_TOKENS:
                goals.append(goal_of(row))
    print(json.dumps({"settings": {**vars(arguments), "tokenizer": str(arguments.tokenizer)},
                      "rows": rows, "goals": goals}))  # fmt: skip


def goal_of(row: dict[str, Any]) -> dict[str, Any]:
    """Whether the median meets the goal for its kind of tokenizer; printed too."""
    limit = GOALS[row["marker_tokens"]]
    met = row["ours_ms"] <= limit
    kind = "markers as tokens" if row["marker_tokens"] else "markers as bytes"
    print(f"goal: {kind}, {GOAL_TOKENS} tokens: median <= {limit:g} ms: {'met' if met else 'NOT met'}")
    return {"marker_tokens": row["marker_tokens"], "limit_ms": limit, "met": met}


if __name__ == "__main__":
    main()
