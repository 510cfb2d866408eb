"""How fast code-judge answers, with isolation on, next to the floors of the same machine in the same run.

    python benchmarks/judge.py [--jobs 400] [--workers 2] [--web 1] [--only print numpy] [--json FILE]

Starts the service itself (embedded server, free port) and checks every job's own answer. Clients share the machine
with the service. Columns: `good/s` counts right answers only, `bad` the others; `warm fork` and `fresh` are how many
times the rate is that of `judge_floor.py`'s floors, for `half` those of print; for `loops` (5 % endless loops, which
hold a worker for a limit of 2 s each) the floor is what those leave. The line below a kind says what processes spent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import judge_floor
from judge_client import Client
from judge_processes import Spent, spent

CODE_JUDGE = Path(__file__).resolve().parent.parent / "code-judge"
CLIENTS = (1, 16, 64, 256)
LOOP_LIMIT = 2
LOOP_SHARE = 0.05


@dataclass(frozen=True)
class Kind:
    """A kind of job. `job(n)` is the n-th: its submission, and whether an answer is the right one."""

    name: str
    job: Callable[[int], tuple[dict[str, object], Callable[[dict], bool]]]
    floor: str  # which of judge_floor's programs
    share: float = 1.0  # of the jobs asked for: for kinds that take long


@dataclass(frozen=True)
class Row:
    """One line of the table; latencies in seconds, None for a batch."""

    job: str
    clients: int | None
    good_per_s: float
    bad: int
    p50: float | None
    p99: float | None
    of_warm_fork: float | None
    of_fresh: float | None


def _printing(template: str, expected: str) -> Callable[[int], tuple[dict[str, object], Callable]]:
    def job(number: int) -> tuple[dict[str, object], Callable[[dict], bool]]:
        want = expected.replace("N", str(number))
        submission = {"solution": template.replace("N", str(number))}
        return submission, lambda result: result["run_success"] and result["stdout"] == want

    return job


def _raising(number: int) -> tuple[dict[str, object], Callable[[dict], bool]]:
    want = f"ValueError: {number}"
    return {
        "solution": f"raise ValueError({number})"
    }, lambda result: result["exception"] == "ValueError" and want in result["stderr"]


_print = _printing("print(N)", "N\n")
_numpy = _printing("import numpy as np\nprint(int(np.arange(3).sum()) * 0 + N)", "N\n")
_sympy = _printing("import sympy\nx = sympy.Symbol('x')\nprint(x + N)", "x + N\n")


def _half(number: int) -> tuple[dict[str, object], Callable[[dict], bool]]:
    return _raising(number) if number % 2 else _print(number)


def _loops(number: int) -> tuple[dict[str, object], Callable[[dict], bool]]:
    if number % round(1 / LOOP_SHARE):
        return _print(number)
    submission = {"solution": "while True: pass", "options": {"timeout": str(LOOP_LIMIT)}}
    return submission, lambda result: result["reason"] == "worker_timeout" and not result["retryable"]


KINDS = (
    Kind("print", _print, "print"),
    Kind("numpy", _numpy, "numpy"),
    Kind("sympy", _sympy, "sympy", 0.5),
    Kind("half", _half, "print"),
    Kind("loops", _loops, "print", 0.4),
)


@contextlib.contextmanager
def service(workers: int, web: int) -> Iterator[tuple[str, int]]:
    """Run `code-judge serve`; give its base URL and its process number."""
    with tempfile.TemporaryDirectory() as folder:
        ready = os.path.join(folder, "url")
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--ready-file", ready]
        command += ["--die-with-parent", "--workers", str(workers), "--web", str(web)]
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URI"}
        environment.setdefault("LOG_LEVEL", "warning")
        process = subprocess.Popen(command, cwd=CODE_JUDGE, env=environment, stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(ready):
                if process.poll() is not None:
                    sys.exit("the service did not start; its message is above")
                time.sleep(0.02)
            yield Path(ready).read_text().strip(), process.pid
        finally:
            process.terminate()
            process.wait()


async def load(url: str, kind: Kind, clients: int, jobs: int) -> tuple[float, int, list[float]]:
    """Run `jobs` jobs from `clients` connections: good jobs a second, bad ones, latencies in seconds, sorted."""
    numbers = iter(range(1, jobs + 1))
    times: list[float] = []
    bad = 0
    connections = [Client(url) for _ in range(clients)]
    await asyncio.gather(*(connection.open() for connection in connections))

    async def work(connection: Client) -> None:
        nonlocal bad
        for number in numbers:
            submission, right = kind.job(number)
            began = time.perf_counter()
            status, result = await connection.post("/run", submission)
            times.append(time.perf_counter() - began)
            bad += not (status == 200 and right(result))

    started = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return (jobs - bad) / seconds, bad, sorted(times)


async def batch(url: str, kind: Kind, jobs: int) -> tuple[float, int]:
    """Run `jobs` jobs as one batch: good jobs a second, bad ones."""
    connection = Client(url)
    await connection.open()
    chosen = [kind.job(number) for number in range(1, jobs + 1)]
    started = time.perf_counter()
    body = {"submissions": [submission for submission, _ in chosen]}
    status, answer = await connection.post("/run/batch", body)
    seconds = time.perf_counter() - started
    connection.close()
    if status != 200:
        return 0.0, jobs
    good = sum(right(result) for (_, right), result in zip(chosen, answer["results"], strict=True))
    return good / seconds, jobs - good


def measure(
    url: str, service_pid: int, kind: Kind, options: argparse.Namespace
) -> Iterator[tuple[Row, Spent]]:
    """All rows of a kind, each with what the processes spent."""
    jobs = max(20, round(options.jobs * kind.share))
    warm = judge_floor.warm_fork(judge_floor.PROGRAMS[kind.floor], options.jobs, options.workers)
    fresh = judge_floor.fresh(judge_floor.PROGRAMS[kind.floor], max(4, options.jobs // 20), options.workers)
    if kind.name == "loops":
        warm = fresh = options.workers / (LOOP_SHARE * LOOP_LIMIT)
    asyncio.run(load(url, kind, 4, 16))  # the zygotes of this kind
    for clients in (*CLIENTS, None):
        before = spent(service_pid)
        p50 = p99 = None
        if clients is None:
            rate, bad = asyncio.run(batch(url, kind, jobs))
        else:
            rate, bad, times = asyncio.run(load(url, kind, clients, max(jobs, clients)))
            p50, p99 = (times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.99))
        used = (spent(service_pid) - before) / max(jobs, clients or 0)
        yield Row(kind.name, clients, rate, bad, p50, p99, rate / warm, rate / fresh), used


def main() -> None:
    """Print one line a kind and number of clients, then where the time went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=400, help="jobs a line (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--web", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in KINDS], metavar="KIND")
    parser.add_argument("--json", metavar="FILE", help="also write all rows there")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {options.workers} workers, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'job':6}{'clients':>8}{'good/s':>8}{'bad':>5}{'p50 ms':>8}{'p99 ms':>8}{'warm fork':>11}{'fresh':>7}"
    )
    rows: list[dict] = []
    with service(options.workers, options.web) as (url, pid):
        for kind in KINDS:
            if options.only and kind.name not in options.only:
                continue
            for row, used in measure(url, pid, kind, options):
                p50, p99 = (f"{x * 1000:.1f}" if x is not None else "" for x in (row.p50, row.p99))
                line = (
                    f"{row.job:6}{row.clients or 'batch':>8}{row.good_per_s:8.0f}{row.bad:5}{p50:>8}{p99:>8}"
                )
                print(f"{line}{row.of_warm_fork:11.2f}{row.of_fresh:7.1f}", flush=True)
                rows.append({**asdict(row), "ms_of": used.milliseconds()})
            print(f"       ms a job: {used}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
