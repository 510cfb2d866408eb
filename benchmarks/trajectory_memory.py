"""Memory of a trajectory in our agent loop against upstream verl's, at equal length, in one run.

    python benchmarks/trajectory_memory.py                   # 32 trajectories of 20,480 response tokens
    python benchmarks/trajectory_memory.py --tokens 4096

`--trajectories` are made at once, by a script instead of a model. "live": all of them wait for their last, short
answer, with everything that the loop keeps of them. "output": all are finished and only what the loops returned is
held. Both are given by tracemalloc, per trajectory and as bytes per response token, and "RSS" is "live" by the
process's resident set, which has the allocator's slack in it. Each variant is measured in processes of its own, after
two trajectories to warm up.

"off" is our loop with rollback off, "on" with rollback and no failing call, "record" the same with the recorder,
"failing" with `--failing` of the calls failing, of which `--recovered` are repaired. The floor is what the trainer
needs of a response: ids, mask and log-probabilities, as Python lists of fresh numbers (verl's form) and as arrays (4,
1, 4 bytes). Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import tracemalloc
from array import array
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scripted_rollout import RESPONSE_TOKENS, Rollout, Script, load_tokenizer, settle

# (variant, rollback, record, with failing calls)
VARIANTS = (
    ("upstream", None, False, False),
    ("off", False, False, False),
    ("on", True, False, False),
    ("record", True, True, False),
    ("upstream, failing", None, False, True),
    ("on, failing", True, False, True),
    ("record, failing", True, True, True),
)
# Template and observation between two turns, about.
OBSERVATION_TOKENS = 30
ANSWER_TOKENS = 16


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


async def hold(rollout: Rollout, count: int, used: Callable[[], int]) -> dict[str, float]:
    """Bytes per trajectory of `count` trajectories, by `used`: before their last answer, and finished."""
    await asyncio.gather(*(rollout.trajectory(number) for number in range(count, count + 2)))
    await settle()
    before = used()
    rollout.server.gate = asyncio.Barrier(count + 1)
    tasks = [asyncio.create_task(rollout.trajectory(number)) for number in range(count)]
    while rollout.server.gate.n_waiting < count:
        await asyncio.sleep(0.001)
        # A trajectory that failed will never come to the gate.
        for task in tasks:
            if task.done():
                task.result()
    await settle()
    live = used() - before
    await rollout.server.gate.wait()
    outputs = await asyncio.gather(*tasks)
    tasks.clear()
    rollout.server.check_finished()
    await settle()
    kept = used() - before
    length = sum(len(output.response_ids) for output in outputs) / count
    return {"live": live / count, "output": kept / count, "length": length}


def measure(settings: tuple[Script, bool | None, bool, int], traced: bool, reply: Connection) -> None:
    """Measure one variant in this process, which is used for nothing else."""
    script, rollback, record, count = settings
    rollout = Rollout(script, rollback, record=record)
    # Nothing of what the imports made is garbage: it need not be searched.
    gc.freeze()
    if traced:
        tracemalloc.start()
    reply.send(asyncio.run(hold(rollout, count, traced_bytes if traced else resident_bytes)))


def in_own_process(settings: tuple[Script, bool | None, bool, int], traced: bool) -> dict[str, float]:
    # Forked: what verl's import takes is there already, and is not paid for again.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(settings, traced, theirs))
    process.start()
    theirs.close()
    try:
        result: dict[str, float] = ours.recv()
    except EOFError:
        raise SystemExit(f"the process that measured {settings} ended without a result") from None
    finally:
        process.join()
    return result


def floor(tokens: int) -> dict[str, float]:
    """Bytes per token of the ids, mask and log-probabilities of a scripted turn alone."""
    answer = Script(turn_tokens=tokens).answer("answer")
    ids, logprobs = array("i", answer[0]), array("f", answer[1])
    tracemalloc.start()
    before = traced_bytes()
    lists = ids.tolist(), [1] * tokens, logprobs.tolist()
    as_lists = traced_bytes() - before
    before = traced_bytes()
    arrays = array("i", ids), array("b", [1]) * tokens, array("f", logprobs)
    as_arrays = traced_bytes() - before
    tracemalloc.stop()
    del lists, arrays
    return {"lists": as_lists / tokens, "arrays": as_arrays / tokens}


def measure_variant(
    name: str, rollback: bool | None, record: bool, failing: bool, arguments: argparse.Namespace
) -> dict[str, Any]:
    turn_tokens = (arguments.tokens - ANSWER_TOKENS) // (arguments.turns - 1) - OBSERVATION_TOKENS
    script = Script(
        arguments.turns,
        turn_tokens,
        ANSWER_TOKENS,
        arguments.failing if failing else 0.0,
        arguments.recovered,
        arguments.seed,
    )
    settings = script, rollback, record, arguments.trajectories
    traced, resident = in_own_process(settings, True), in_own_process(settings, False)
    length = traced["length"]
    return {
        "variant": name,
        "response_tokens": length,
        "live_bytes": traced["live"],
        "live_bytes_per_token": traced["live"] / length,
        "live_resident_bytes": resident["live"],
        "output_bytes": traced["output"],
        "output_bytes_per_token": traced["output"] / length,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=int, default=32, help="that are live at once")
    parser.add_argument("--tokens", type=int, default=RESPONSE_TOKENS, help="response tokens of each, nearly")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--failing", type=float, default=0.36, help="share of calls that fail")
    parser.add_argument("--recovered", type=float, default=0.62, help="share of these that are repaired")
    parser.add_argument("--seed", type=int, default=1)
    ours = [name for name, rollback, *_ in VARIANTS if rollback is not None]
    parser.add_argument("--variants", nargs="+", choices=ours, default=ours, help="of ours; default: all")
    arguments = parser.parse_args(argv)
    # A forked process must not use the tokenizer's thread pool; it inherits the tokenizer.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    load_tokenizer()

    print(f"{arguments.trajectories} trajectories at once, {arguments.turns} turns; MB of one trajectory")
    print(f"{'variant':<18} {'tokens':>7} {'live':>7} {'B/token':>8} {'ratio':>6} {'RSS':>7} {'ratio':>6} "
          f"{'output':>7} {'B/token':>8} {'ratio':>6}")  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name, rollback, record, failing in VARIANTS:
        if rollback is not None and name not in arguments.variants:
            continue
        row = measure_variant(name, rollback, record, failing, arguments)
        rows.append(row)
        upstream = next(r for r in rows if r["variant"] == ("upstream, failing" if failing else "upstream"))
        for key in ("live_bytes", "live_resident_bytes", "output_bytes"):
            row[key.replace("bytes", "ratio")] = row[key] / upstream[key]
        print(f"{name:<18} {row['response_tokens']:>7.0f} {row['live_bytes'] / 1e6:>7.2f} "
              f"{row['live_bytes_per_token']:>8.0f} {row['live_ratio']:>6.2f} "
              f"{row['live_resident_bytes'] / 1e6:>7.2f} {row['live_resident_ratio']:>6.2f} "
              f"{row['output_bytes'] / 1e6:>7.2f} {row['output_bytes_per_token']:>8.0f} "
              f"{row['output_ratio']:>6.2f}", flush=True)  # fmt: skip
    least = floor(arguments.tokens)
    for form, per_token in least.items():
        print(
            f"{'floor, ' + form:<18} {arguments.tokens:>7} {per_token * arguments.tokens / 1e6:>7.2f} {per_token:>8.0f}"
        )
    print(json.dumps({"settings": vars(arguments), "rows": rows, "floor_bytes_per_token": least}))


if __name__ == "__main__":
    main()
