"""What this machine needs for a program without any service: the floors that `judge.py` prints beside its figures.

    python benchmarks/judge_floor.py [--jobs 200] [--processes 2]

*fresh*: an interpreter is started for each program, as many at a time as there are cores. *warm fork*: a process that
has imported what the program imports forks a child for each; the child runs it, flushes and exits; nothing isolates it,
nothing watches it, nobody reads its output. Both are programs a second over all cores.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PROGRAMS = {
    "print": "print(7)",
    "numpy": "import numpy as np\nprint(int(np.arange(3).sum()) * 0 + 7)",
    "sympy": "import sympy\nx = sympy.Symbol('x')\nprint(x + 7)",
}


def fresh(program: str, jobs: int, processes: int) -> float:
    """Programs a second, each in an interpreter of its own."""
    command = [sys.executable, "-c", program]
    started = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda _: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), range(jobs)))
    return jobs / (time.perf_counter() - started)


def warm_fork(program: str, jobs: int, processes: int) -> float:
    """Programs a second, forked from `processes` interpreters that have done all imports."""
    command = [sys.executable, __file__, "--forks", str(jobs // processes), "--program", program]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "LD_BIND_NOW": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(processes)
    ]
    return sum(float(process.communicate()[0].splitlines()[-1]) for process in running)


def _fork(program: str, jobs: int) -> float:
    output = os.dup(1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    exec(compile(program, "<floor>", "exec"), {})
    sys.stdout.flush()
    gc.collect()
    gc.freeze()
    started = time.perf_counter()
    for _ in range(jobs):
        child = os.fork()
        if child == 0:
            exec(compile(program, "<floor>", "exec"), {})
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
    rate = jobs / (time.perf_counter() - started)
    os.dup2(output, 1)
    return rate


def main() -> None:
    """Print both floors of each program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--forks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--program", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.forks:
        print(_fork(options.program, options.forks), flush=True)
        return
    print(f"{'program':8}{'fresh/s':>9}{'warm fork/s':>13}")
    for name, program in PROGRAMS.items():
        started = fresh(program, max(4, options.jobs // 10), options.processes)
        print(
            f"{name:8}{started:9.1f}{warm_fork(program, options.jobs, options.processes):13.0f}", flush=True
        )


if __name__ == "__main__":
    main()
