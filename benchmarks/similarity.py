"""Time of every similarity metric by size of the calls, against the standard library's difflib, in one run.

    python benchmarks/similarity.py
    python benchmarks/similarity.py --sizes 2000 100000 --metrics json text --limit 60

Each row compares two calls of `chars` characters. Kinds: `edited` (one change in 200 characters: what a correction
does), `unrelated` (random words in the same form), `repeated` ("a" against "ab", over and over: difflib's worst case).
Calls hold code for difflib, token and ast, records for json, sentences for text.

"wait" is the longest that another thread had to wait for the interpreter meanwhile; an event loop would have stood
still as long. "stdlib" is `difflib.SequenceMatcher(autojunk=False).ratio()` on the same characters, in a process of its
own that is stopped after `--limit` seconds; "faster" is its time over ours. Best of `--repeat` rounds, because other
processes can only make a round slower.
"""

import argparse
import difflib
import json
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cleaner.saar.similarity import METRICS, Similarity, comparable_text, similarity

KINDS = ("edited", "unrelated", "repeated")
_GAMMA = 0.5
_TICK = 0.001


def code(chars: int, generator: random.Random) -> str:
    """Python that parses, of about `chars` characters."""
    lines: list[str] = []
    size = 0
    while size < chars:
        name, other = (f"v{generator.randrange(1000)}" for _ in range(2))
        lines += [f"def f{name}({other}):", f"    {name} = {other} * {generator.randrange(100)} + 1"]
        lines += [f"    if {name} > {generator.randrange(100)}:", f"        return [{other}, {name}]"]
        size = sum(map(len, lines[-4:])) + 4 + size
    return "\n".join(lines)


def sentences(chars: int, generator: random.Random) -> str:
    return "".join(
        generator.choice("aeiou") + generator.choice("bdfgkl") * 2 + generator.choice(["e ", "o, ", "i. "])
        for _ in range(chars // 5)
    )


def records(chars: int, generator: random.Random) -> str:
    rows = [
        {
            "name": sentences(20, generator),
            "id": generator.randrange(10**6),
            "tags": [sentences(6, generator)],
        }
        for _ in range(chars // 70)
    ]
    return json.dumps({"rows": rows})


def edited(text: str, generator: random.Random) -> str:
    """`text` with one character in 200 replaced, so that code still parses and JSON stays JSON."""
    letters = list(text)
    places = [where for where, letter in enumerate(letters) if letter in "bdfgkv"]
    for where in generator.sample(places, -(-len(text) // 200)):
        letters[where] = "w"
    return "".join(letters)


def calls(metric: str, kind: str, chars: int) -> tuple[str, str]:
    """Argument strings of a failed and an accepted call."""
    generator = random.Random(chars)
    if kind == "repeated":
        if metric == "json":
            return json.dumps({"q": ["a"] * (chars // 5)}), json.dumps({"q": ["ab"] * (chars // 6)})
        step = " " if metric == "text" else ";" if metric in ("token", "ast") else ""
        pair = (f"a{step}" * (chars // (1 + len(step))), f"a{step}b{step}" * (chars // (2 + 2 * len(step))))
    elif metric == "json":
        failed = records(chars, generator)
        return failed, edited(failed, generator) if kind == "edited" else records(chars, generator)
    else:
        make: Callable[[int, random.Random], str] = sentences if metric == "text" else code
        failed = make(chars, generator)
        pair = (failed, edited(failed, generator) if kind == "edited" else make(chars, generator))
    name = "text" if metric == "text" else "code"
    return json.dumps({name: pair[0]}), json.dumps({name: pair[1]})


@contextmanager
def longest_wait() -> Iterator[Callable[[], float]]:
    """While open, a second thread wakes every millisecond; the value is the most that it came late, in seconds."""
    late = [0.0]
    done = threading.Event()

    def wake() -> None:
        before = time.perf_counter()
        while not done.wait(_TICK):
            now = time.perf_counter()
            late[0] = max(late[0], now - before - _TICK)
            before = now

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        yield lambda: late[0]
    finally:
        done.set()
        thread.join()


def measured(metric: str, pair: tuple[str, str]) -> tuple[float, float, Similarity]:
    with longest_wait() as wait:
        started = time.perf_counter()
        found = similarity([pair[0]], [pair[1]], _GAMMA, metric)
        return time.perf_counter() - started, wait(), found


def _stdlib(texts: tuple[str, str], answer: "multiprocessing.Queue[float]") -> None:
    started = time.perf_counter()
    difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()
    answer.put(time.perf_counter() - started)


def stdlib_seconds(pair: tuple[str, str], limit: float) -> float | None:
    """None if it takes longer than `limit`."""
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(
        target=_stdlib, args=((comparable_text(pair[0]), comparable_text(pair[1])), answer)
    )
    process.start()
    process.join(limit + 2)  # two seconds to start
    if process.is_alive():
        process.kill()
        process.join()
    return None if answer.empty() else answer.get()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[200, 2_000, 10_000, 40_000, 200_000, 1_000_000]
    )
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), choices=METRICS)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--limit", type=float, default=5.0, help="seconds that the standard library may take")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()

    heads = (
        ("kind", 11),
        ("chars", -9),
        ("ms", -10),
        ("wait ms", -9),
        ("value", -8),
        ("  exact", 8),
        ("stdlib ms", -11),
    )
    print("metric  " + "".join(f"{head:{'<>'[width < 0]}{abs(width)}}" for head, width in heads) + "  faster")
    rows = []
    for metric in arguments.metrics:
        for kind in arguments.kinds:
            slow = False  # what is too slow at one size is not tried at a larger one
            for chars in sorted(arguments.sizes):
                pair = calls(metric, kind, chars)
                rounds = [measured(metric, pair) for _ in range(arguments.repeat)]
                seconds, found = min(taken for taken, _, _ in rounds), rounds[0][2]
                wait = min(wait for _, wait, _ in rounds)
                stdlib = None if slow else stdlib_seconds(pair, arguments.limit)
                slow = stdlib is None
                row = {
                    "metric": metric, "kind": kind, "chars": chars, "seconds": seconds, "wait_seconds": wait,
                    "value": found.value, "exact": found.exact, "stdlib_seconds": stdlib,
                    "faster": None if stdlib is None else stdlib / seconds,
                }  # fmt: skip
                rows.append(row)
                reference = (
                    f"{'-':>11}{'-':>8}"
                    if stdlib is None
                    else f"{1e3 * stdlib:>11.2f}{stdlib / seconds:>8.1f}"
                )
                print(
                    f"{metric:<8}{kind:<11}{chars:>9}{1e3 * seconds:>10.2f}{1e3 * wait:>9.1f}{found.value:>8.3f}  "
                    f"{found.exact!s:<6}{reference}",
                    flush=True,
                )
    worst = max(rows, key=lambda row: row["seconds"])
    print(
        f"longest: {worst['metric']}, {worst['kind']}, {worst['chars']} characters: {worst['seconds']:.2f} s"
    )
    print(json.dumps({"gamma": _GAMMA, "limit_seconds": arguments.limit, "rows": rows}))


if __name__ == "__main__":
    main()
