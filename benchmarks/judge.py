"""How fast code-judge answers, next to a fresh interpreter for each job on the same machine in the same run.

    python benchmarks/judge.py [--jobs 400] [--workers 2] [--web 1]

Starts the service itself (embedded server, free port) and checks every job's own answer. `good/s` counts right answers
only. The client shares the machine with the service.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CODE_JUDGE = Path(__file__).resolve().parent.parent / "code-judge"


@dataclass(frozen=True)
class Kind:
    """A kind of job: its program and what it prints for number n; None if it is to fail."""

    name: str
    program: str
    expected: str | None

    def at(self, number: int) -> tuple[str, str | None]:
        """The program and the output of job `number`, different from any other's."""
        return self.program.replace("N", str(number)), self.expected and self.expected.replace(
            "N", str(number)
        )


KINDS = (
    Kind("print", "print(N)", "N\n"),
    Kind("numpy", "import numpy as np\nprint(int(np.arange(3).sum()) * 0 + N)", "N\n"),
    Kind("sympy", "import sympy\nx = sympy.Symbol('x')\nprint(x + N if N else x)", "x + N\n"),
    Kind("raise", "raise ValueError(N)", None),
)


@contextlib.contextmanager
def service(workers: int, web: int) -> Iterator[str]:
    """Run `code-judge serve` and give its base URL."""
    with tempfile.TemporaryDirectory() as folder:
        ready = os.path.join(folder, "url")
        command = [
            sys.executable,
            "-m",
            "app.cli",
            "serve",
            "--port",
            "0",
            "--ready-file",
            ready,
            "--die-with-parent",
        ]
        command += ["--workers", str(workers), "--web", str(web)]
        environment = {name: value for name, value in os.environ.items() if name != "REDIS_URI"}
        process = subprocess.Popen(command, cwd=CODE_JUDGE, env=environment, stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(ready):
                if process.poll() is not None:
                    sys.exit("the service did not start; its message is above")
                time.sleep(0.02)
            yield Path(ready).read_text().strip()
        finally:
            process.terminate()
            process.wait()


class Client:
    """One keep-alive HTTP connection, thin enough not to be what is measured."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)

    async def post(self, path: str, content: object) -> dict:
        """Send JSON, return the JSON of the answer. Raises RuntimeError for any status but 200."""
        body = json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        size = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
        text = await self._reader.readexactly(size)
        if not answer.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{answer.split()[1].decode()}: {text[:200].decode()}")
        return json.loads(text)

    def close(self) -> None:
        """Disconnect."""
        self._writer.close()


def good(result: dict, expected: str | None) -> bool:
    """Whether an answer is the one its job must have."""
    if expected is None:
        return result["exception"] == "ValueError" and not result["run_success"]
    return result["stdout"] == expected and result["run_success"]


async def load(url: str, kind: Kind, clients: int, jobs: int) -> tuple[float, list[float]]:
    """Run `jobs` jobs from `clients` connections; return good jobs a second and the sorted latencies in seconds."""
    numbers = iter(range(1, jobs + 1))
    times: list[float] = []
    right = 0

    async def client() -> None:
        nonlocal right
        connection = Client(url)
        await connection.open()
        for number in numbers:
            program, expected = kind.at(number)
            started = time.perf_counter()
            result = await connection.post("/run", {"type": "python", "solution": program})
            times.append(time.perf_counter() - started)
            right += good(result, expected)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return right / (time.perf_counter() - started), sorted(times)


async def batch(url: str, kind: Kind, jobs: int) -> float:
    """Run `jobs` jobs as one batch; return good jobs a second."""
    pairs = [kind.at(number) for number in range(1, jobs + 1)]
    connection = Client(url)
    await connection.open()
    started = time.perf_counter()
    submissions = [{"type": "python", "solution": program} for program, _ in pairs]
    answer = await connection.post("/run/batch", {"type": "batch", "submissions": submissions})
    seconds = time.perf_counter() - started
    connection.close()
    return sum(good(r, expected) for r, (_, expected) in zip(answer["results"], pairs, strict=True)) / seconds


def fresh_interpreters(kind: Kind, jobs: int) -> float:
    """Jobs a second with a fresh `python -c` each, one after the other, without any isolation."""
    started = time.perf_counter()
    for number in range(1, jobs + 1):
        program, expected = kind.at(number)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert (done.stdout == expected) if expected else done.returncode == 1
    return jobs / (time.perf_counter() - started)


def main() -> None:
    """Print one line a kind and number of clients."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--web", type=int, default=1)
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {options.workers} workers, load {os.getloadavg()[0]:.1f}")
    print(f"{'job':7}{'clients':>8}{'good/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'fresh/s':>9}{'ratio':>7}")
    with service(options.workers, options.web) as url:
        for kind in KINDS:
            floor = fresh_interpreters(kind, max(5, options.jobs // 40))
            asyncio.run(load(url, kind, 4, 20))  # the zygotes of this kind
            for clients in (1, 16, 64):
                rate, times = asyncio.run(load(url, kind, clients, options.jobs))
                p50, p99 = (times[int(len(times) * q)] * 1000 for q in (0.5, 0.99))
                print(
                    f"{kind.name:7}{clients:8}{rate:9.0f}{p50:9.1f}{p99:9.1f}{floor:9.1f}{rate / floor:7.1f}"
                )
            rate = asyncio.run(batch(url, kind, options.jobs))
            print(f"{kind.name:7}{'batch':>8}{rate:9.0f}{'':18}{floor:9.1f}{rate / floor:7.1f}", flush=True)


if __name__ == "__main__":
    main()
