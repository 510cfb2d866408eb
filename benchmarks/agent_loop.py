"""Seconds of our agent loop against upstream verl's, on one script, in one run, interleaved.

    python benchmarks/agent_loop.py                              # 2,048 trajectories of 8 turns, two rounds
    python benchmarks/agent_loop.py --turn-tokens 1000           # longer turns
    python benchmarks/agent_loop.py --trajectories 256 --rounds 1

The model is a script whose answers cost nothing, so what is measured is all that the loops do themselves: tokens
merged, calls parsed and located, the tool called, the history kept. Trajectories run concurrently in batches, as in
verl's worker. Every batch is made by all variants one after the other, in an order that is drawn anew each time; a
ratio is that of two variants on one batch. Printed are its median over all batches with the interval that holds the
true median with 95 % probability, and its least and greatest value: by wall time, and by processor time of all threads,
which other processes disturb less. Small batches keep what is compared close together in time.

"off" is our loop with rollback off, "on" with rollback and no failing call, "record" the same with the recorder; "on,
failing" has `--failing` of its calls fail, `--recovered` of which the first correction repairs, against upstream's loop
on the same failing calls. A real server takes longer than the loop by orders of magnitude; the extra requests of "on,
failing", not its ratio here, are what rollback costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scripted_rollout import Rollout, Script, settle
from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

GOAL = 1.02
# (variant, the alternative that it is compared with)
PAIRS = (
    ("off", "upstream"),
    ("on", "upstream"),
    ("record", "upstream"),
    ("record", "on"),
    ("on, failing", "upstream, failing"),
)


@dataclass(frozen=True)
class Batch:
    """What one variant took for one batch of trajectories."""

    wall: float
    processor: float


def variants(arguments: argparse.Namespace) -> dict[str, Rollout]:
    good = Script(arguments.turns, arguments.turn_tokens, seed=arguments.seed)
    failing = replace(good, failing=arguments.failing, recovered=arguments.recovered)
    return {
        "upstream": Rollout(good, None),
        "off": Rollout(good, False),
        "on": Rollout(good, True),
        "record": Rollout(good, True, record=True),
        "upstream, failing": Rollout(failing, None),
        "on, failing": Rollout(failing, True),
    }


async def run_batch(rollout: Rollout, numbers: range) -> tuple[Batch, list[AgentLoopOutput]]:
    await settle()
    wall, processor = time.perf_counter(), time.process_time()
    outputs = await asyncio.gather(*(rollout.trajectory(number) for number in numbers))
    batch = Batch(time.perf_counter() - wall, time.process_time() - processor)
    rollout.server.check_finished()
    return batch, outputs


def check_same_tokens(outputs: dict[str, list[AgentLoopOutput]]) -> None:
    """Without a failing call all variants must have made upstream's tokens."""
    for name in ("off", "on", "record"):
        for ours, theirs in zip(outputs[name], outputs["upstream"], strict=True):
            same = ours.response_ids == theirs.response_ids and ours.response_mask == theirs.response_mask
            if not same or ours.response_logprobs != theirs.response_logprobs:
                raise AssertionError(f"variant {name!r} made other tokens than upstream's loop")


async def measure(arguments: argparse.Namespace, rollouts: dict[str, Rollout]) -> dict[str, list[Batch]]:
    """The batches of all variants; batch i is the same work for each of them."""
    first = {name: (await run_batch(rollout, range(2)))[1] for name, rollout in rollouts.items()}
    check_same_tokens(first)
    for rollout in rollouts.values():
        rollout.server.requests = 0
    batches: dict[str, list[Batch]] = defaultdict(list)
    shuffle = random.Random(arguments.seed).sample
    for _ in range(arguments.rounds):
        for start in range(0, arguments.trajectories, arguments.batch):
            numbers = range(start, min(start + arguments.batch, arguments.trajectories))
            for name in shuffle(list(rollouts), len(rollouts)):
                batches[name].append((await run_batch(rollouts[name], numbers))[0])
    return batches


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, its 95 % interval by order statistics (normal approximation of the rank), least and greatest."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    low = max(0, math.floor(len(ordered) / 2 - half))
    high = min(len(ordered) - 1, math.ceil(len(ordered) / 2 + half))
    return {
        "median": statistics.median(ordered),
        "low": ordered[low],
        "high": ordered[high],
        "min": ordered[0],
        "max": ordered[-1],
    }


def compare(ours: Sequence[Batch], theirs: Sequence[Batch]) -> dict[str, dict[str, float]]:
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "wall": spread([a.wall / b.wall for a, b in pairs]),
        "processor": spread([a.processor / b.processor for a, b in pairs]),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--turn-tokens", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64, help="trajectories that run concurrently")
    parser.add_argument("--rounds", type=int, default=2, help="passes over all trajectories")
    parser.add_argument("--failing", type=float, default=0.36, help="share of calls that fail")
    parser.add_argument("--recovered", type=float, default=0.62, help="share of these that are repaired")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)

    rollouts = variants(arguments)
    batches = asyncio.run(measure(arguments, rollouts))
    print(
        f"{arguments.trajectories} trajectories, {arguments.turns} turns of {arguments.turn_tokens} tokens, "
        f"batches of {arguments.batch}, {arguments.rounds} rounds"
    )
    print(f"{'variant':<18} {'seconds':>8} {'us per turn':>12} {'CPU us per turn':>16} {'requests':>9}")
    rows = []
    for name, rollout in rollouts.items():
        turns = arguments.trajectories * arguments.turns * arguments.rounds
        row = {
            "variant": name,
            "seconds": sum(batch.wall for batch in batches[name]) / arguments.rounds,
            "us_per_turn": 1e6 * sum(batch.wall for batch in batches[name]) / turns,
            "processor_us_per_turn": 1e6 * sum(batch.processor for batch in batches[name]) / turns,
            "requests": rollout.server.requests // arguments.rounds,
        }
        rows.append(row)
        print("{:<18} {:>8.2f} {:>12.0f} {:>16.0f} {:>9}".format(*row.values()))
    form = "{median:.3f} [{low:.3f} - {high:.3f}] ({min:.2f} - {max:.2f})"
    print(f"{'ratio: median [95 %] (min - max)':<36} {'wall':>38} {'processor':>38}")
    ratios = []
    for ours, theirs in PAIRS:
        ratio = compare(batches[ours], batches[theirs])
        ratios.append({"variant": ours, "alternative": theirs, **ratio})
        shown = [form.format(**ratio[key]) for key in ("wall", "processor")]
        print(f"{ours + ' / ' + theirs:<36} {shown[0]:>38} {shown[1]:>38}")
    extra = rollouts["on, failing"].server.requests / rollouts["upstream, failing"].server.requests - 1
    on = next(r for r in ratios if (r["variant"], r["alternative"]) == ("on", "upstream"))
    met = on["wall"]["median"] <= GOAL
    print(f"extra requests with {arguments.failing:.0%} failing calls: {extra:.1%}")
    print(f"goal: on / upstream <= {GOAL}: {'met' if met else 'NOT met'}")
    result = {"settings": vars(arguments), "rows": rows, "ratios": ratios, "extra_requests": extra}
    print(json.dumps({**result, "goal": GOAL, "goal_met": met}))


if __name__ == "__main__":
    main()
