"""Thousands of mixed jobs leave nothing behind: no process, no file, no descriptor, no key, no memory.

The suite runs a short one; the whole is `SOAK_JOBS=10000 pytest tests/code_judge/test_soak.py -s`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from judge_service import descendants, eventually

JOBS = int(os.environ.get("SOAK_JOBS", "400"))
CLIENTS = 16
LIMIT = "0.3"  # seconds of a program that never ends
_JSON = {"content-type": "application/json"}
_SEED = 20261126
_CONNECTIONS = 16  # to Redis, at most, of a web process
_GROWTH = 10 << 20  # bytes that a process may have grown by

DAEMON = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\nprint(N)"
LITTER = (
    "import os\nos.makedirs('a/b/c')\nfor n in range(50):\n    open(f'a/b/{n}', 'w').write('x' * 1000)\n"
    "os.symlink('/', 'a/root')\nos.chmod('a/b', 0)\nprint(N)"
)
FLOOD = "import os\nfor _ in range(64): os.write(1, b'x' * 65536)\nprint(N)"
HOG = "x = [bytearray(10 ** 6) for _ in range(3000)]\nprint(N)"

# (weight, program, what its answer must be)
KINDS: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (50, "print(N)", {"run_success": True, "stdout": "N\n"}),
    (10, "import random\nprint(N)", {"run_success": True, "stdout": "N\n"}),
    (10, "raise ValueError(N)", {"run_success": False, "exception": "ValueError"}),
    (5, "import json.decoder\nprint(json.dumps(N))", {"run_success": True, "stdout": "N\n"}),
    (5, DAEMON, {"run_success": True, "stdout": "N\n"}),
    (5, LITTER, {"run_success": True, "stdout": "N\n"}),
    (4, FLOOD, {"run_success": True}),
    (3, HOG, {"run_success": False, "exception": "MemoryError"}),
    (2, "while True: pass", {"run_success": False, "reason": "worker_timeout"}),
    (3, "print('\ud800')", {"run_success": False, "reason": "invalid_input"}),
    (3, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", {"run_success": False, "exception": None}),
)


def _job(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The submission of job `number` and what its answer must have."""
    draw = random.Random(_SEED + number)
    _, program, want = draw.choices(KINDS, [weight for weight, _, _ in KINDS])[0]
    submission = {"sub_id": str(number), "solution": program.replace("N", str(number))}
    if want.get("reason") == "worker_timeout":
        submission["options"] = {"timeout": LIMIT}
    filled = {
        key: value.replace("N", str(number)) if key == "stdout" else value for key, value in want.items()
    }
    return submission, filled


async def _run(url: str, numbers: range) -> list[tuple[int, dict[str, Any]]]:
    """Run the jobs from several clients, a part in batches, a part with clients that leave; the wrong answers."""
    wrong: list[tuple[int, dict[str, Any]]] = []
    queue = iter(numbers)

    def check(number: int, result: dict[str, Any]) -> None:
        _, want = _job(number)
        if result["sub_id"] != str(number) or any(result[key] != value for key, value in want.items()):
            wrong.append((number, result))

    async def client(name: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=_JSON) as http:
            for number in queue:
                if number % 40 == 9:  # a client that leaves
                    body = {"solution": "import time; time.sleep(20)"}
                    with contextlib.suppress(httpx.TimeoutException):
                        await http.post("/run", json=body, timeout=0.05)
                    continue
                members = [number] + [n for _, n in zip(range(7), queue, strict=False)] * (number % 10 == 0)
                content = [_job(member)[0] for member in members]
                if len(members) > 1:
                    answer = await http.post("/run/batch", content=_ascii({"submissions": content}))
                    for member, result in zip(members, answer.json()["results"], strict=True):
                        check(member, result)
                else:
                    check(number, (await http.post("/run", content=_ascii(content[0]))).json())

    await asyncio.gather(*map(client, range(CLIENTS)))
    return wrong


def _ascii(content: object) -> bytes:
    return json.dumps(content).encode("ascii")  # lone surrogates travel as escapes


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _files(folder: str) -> list[str]:
    """Every file and folder below `folder` but what Redis keeps."""
    return sorted(
        os.path.join(place, name)
        for place, folders, names in os.walk(folder)
        for name in (*folders, *names)
        if "appendonly" not in place + name
    )


@pytest.mark.timeout(1800)
def test_thousands_of_mixed_jobs_leave_nothing_behind(start_judge: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _soak(start_judge("--workers", "2", MAX_EXECUTION_TIME="20", TMPDIR=folder), folder)


def _soak(judge: Any, folder: str) -> None:
    warm = min(200, JOBS)
    assert asyncio.run(_run(judge.url, range(warm))) == []
    assert eventually(lambda: _idle(judge), 5)
    _use_every_layer(judge)
    _use_every_connection(judge)
    processes = judge.processes()
    files = _files(folder)
    before = {pid: (_resident(pid), _descriptors(pid)) for pid in processes}

    assert asyncio.run(_run(judge.url, range(warm, warm + JOBS))) == []

    assert eventually(lambda: _idle(judge), 5)
    _use_every_layer(judge)
    # One process a zygote is the next program's, forked ahead, and another one each time.
    assert eventually(lambda: len(judge.processes()) == len(processes), 5), descendants(judge.process.pid)
    assert _files(folder) == files
    lasting = {pid: line for pid, line in judge.processes().items() if pid in before}
    assert len(lasting) >= len(processes) / 2
    for pid, line in lasting.items():
        resident, descriptors = before[pid]
        assert _resident(pid) - resident < _GROWTH, (line, resident, _resident(pid))
        assert _descriptors(pid) <= descriptors + 2, (line, descriptors, _descriptors(pid))
    assert judge.prints("import os; print(os.listdir('.'))") == "[]\n"


def _use_every_layer(judge: Any) -> None:
    """Let each worker have a zygote of each layer: one whose client left was ended with its program."""
    for name in ("pass", "import random", "import json"):
        solution = f"{name}\nimport time; time.sleep(0.05)"
        answer = judge.post("/run/batch", {"submissions": [{"solution": solution}] * 12})
        assert all(result["run_success"] for result in answer["results"])


def _use_every_connection(judge: Any) -> None:
    """Let each process open all its connections to Redis, for they are opened only when needed and then kept: a
    worker's second one for a program that takes its time, a web process's while others are in use.
    """
    solution = "import time; time.sleep(0.7)"
    answer = judge.post("/run/batch", {"submissions": [{"solution": solution}] * 4})
    assert all(result["run_success"] for result in answer["results"])
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        os.kill(judge.redis_pid(), signal.SIGSTOP)
        try:
            answers = [pool.submit(judge.get, "/status") for _ in range(_CONNECTIONS)]
            time.sleep(0.5)
        finally:
            os.kill(judge.redis_pid(), signal.SIGCONT)
        assert all("queue" in answer.result() for answer in answers)


def _idle(judge: Any) -> bool:
    status = judge.get("/status")
    return status["queue"] == 0 and status["running"] == 0
