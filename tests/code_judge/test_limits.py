"""A program can't use more than its share of time, memory, processes, disk and output."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from judge_service import parent_of

GRACE = 0.3
STUBBORN = """
import signal, sys
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
"""


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        STUBBORN + "while True: pass",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: pass\nos.wait()",
        "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
        "x = 9 ** (10 ** 9)",
        "import sys; sys.stdin = open('/dev/zero'); input()",
        "def f():\n    try: f()\n    finally: f()\nf()",
        "import atexit, time; atexit.register(time.sleep, 60)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "while True: print('x' * 10000)",
    ],
)
def test_no_trick_outlives_the_limit(judge: Any, program: str) -> None:
    started = time.monotonic()
    result = judge.run(program, options={"timeout": "0.5"})
    assert time.monotonic() - started < 0.5 + GRACE + 0.5
    assert result["cost"] < 0.5 + GRACE
    assert result["reason"] == "worker_timeout" or not result["run_success"]
    assert result["retryable"] is False


def test_a_daemon_that_ignores_signals_and_holds_stdout_ends_with_its_job(judge: Any) -> None:
    marker = f"daemon-{os.urandom(6).hex()}"
    program = STUBBORN + (
        f"import os, time, ctypes\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        f"        ctypes.CDLL(None).prctl(15, b'{marker[:15]}')\n        time.sleep(60)\n    os._exit(0)\n"
        "time.sleep(0.1)\nprint('done')"
    )
    started = time.monotonic()
    result = judge.run(program)
    assert (result["run_success"], result["stdout"]) == (True, "done\n")
    assert time.monotonic() - started < 1
    names = {
        Path(f"/proc/{pid}/comm").read_text().strip()
        for pid in judge.processes()
        if os.path.exists(f"/proc/{pid}/comm")
    }
    assert marker[:15] not in names


def test_a_memory_hog_gets_a_memory_error_of_its_own(judge: Any) -> None:
    result = judge.run("print('before')\nx = bytearray(10 ** 9)")
    assert (result["exception"], result["reason"], result["stdout"]) == ("MemoryError", "", "before\n")
    assert (
        judge.run("try:\n    bytearray(10**9)\nexcept MemoryError:\n    print('caught')")["stdout"]
        == "caught\n"
    )


def test_memory_is_counted_over_the_whole_process_tree(judge: Any) -> None:
    program = (
        "import os, time\nfor _ in range(4):\n    if os.fork() == 0:\n        x = bytearray(150 << 20)\n"
        "        for i in range(0, len(x), 4096): x[i] = 1\n        time.sleep(60)\ntime.sleep(60)"
    )
    result = judge.run(program)
    assert result["exception"] == "MemoryError" and "256 MiB" in result["stderr"] and result["cost"] < 1.9


def test_memory_within_the_limit_is_given_even_to_many_processes_that_share_it(judge: Any) -> None:
    program = (
        "import os, time\nx = bytearray(150 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
        "for _ in range(4):\n    if os.fork() == 0:\n        time.sleep(0.3); os._exit(0)\n"
        "for _ in range(4): os.wait()\nprint('ok')"
    )
    assert judge.prints(program) == "ok\n"


def test_shared_memory_counts_too(judge: Any) -> None:
    program = "import mmap\nm = mmap.mmap(-1, 600 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1\nwhile True: pass"
    assert judge.run(program)["exception"] == "MemoryError"


def test_a_fork_bomb_ends_with_its_job_and_the_service_lives(judge: Any) -> None:
    program = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    started = time.monotonic()
    result = judge.run(program, options={"timeout": "0.7"})
    assert result["reason"] == "worker_timeout" or not result["run_success"]
    assert time.monotonic() - started < 3
    assert judge.prints("print(1)") == "1\n"


def test_threads_are_bounded_but_a_few_are_free(judge: Any) -> None:
    few = "import threading\nts = [threading.Thread(target=print, args=['t']) for _ in range(16)]\n"
    assert judge.prints(few + "[t.start() for t in ts]; [t.join() for t in ts]") == "t\n" * 16
    many = "import threading as t, time\nfor _ in range(500): t.Thread(target=time.sleep, args=[1]).start()"
    assert judge.run(many)["exception"] == "RuntimeError"


def test_disk_is_bounded_and_full_is_an_error_of_the_program(judge: Any) -> None:
    one = "f = open('f', 'wb')\nfor _ in range(200): f.write(bytes(1 << 20)); f.flush()"
    assert judge.run(one)["exception"] == "OSError"
    if judge.get("/status")["isolation"]["mount"]:
        many = "for n in range(40):\n    with open(str(n), 'wb') as f: f.write(bytes(4 << 20))"
        assert judge.run(many)["exception"] == "OSError"


def test_a_flood_of_output_costs_the_worker_no_memory(judge: Any) -> None:
    def resident() -> int:
        return max(
            int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in judge.worker_pids()
        )

    judge.prints("print(1)")
    before = resident()
    result = judge.run(
        "import os\nb = b'x' * 65536\nfor _ in range(3200): os.write(1, b)", expected_output="x"
    )
    assert result["run_success"] and not result["success"] and len(result["stdout"]) <= 1000
    assert resident() - before < 10 << 20


def test_many_lines_are_printed_at_the_speed_of_blocks(judge: Any) -> None:
    result = judge.run("for i in range(300_000): print(i)")
    assert result["run_success"] and result["stdout"].endswith("299999\n")


def test_a_spike_between_two_looks_is_stopped_by_the_kernel_where_there_are_control_groups(
    judge: Any,
) -> None:
    if not judge.get("/status")["isolation"]["cgroup"]:
        pytest.skip("no control groups can be made here")
    program = (
        "import os, time\nfor _ in range(7):\n    if os.fork() == 0:\n"
        "        x = bytearray(120 << 20)\n        time.sleep(60)\ntime.sleep(60)"
    )
    result = judge.run(program)
    assert (result["exception"], result["run_success"]) == ("MemoryError", False) and result["cost"] < 1.9
    assert "256 MiB" in result["stderr"]
    assert judge.prints("print(1)") == "1\n"


def test_the_kernel_prefers_a_program_to_its_zygote(judge: Any) -> None:
    if not judge.get("/status")["isolation"]["cgroup"]:
        pytest.skip("no control groups can be made here")
    for _ in range(2):
        assert judge.prints("print(open('/proc/self/oom_score_adj').read(), end='')") == "500\n"
    scores = {pid: Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in judge.processes()}
    waiting = [pid for pid, score in scores.items() if score == "500\n"]
    assert waiting and {scores[parent_of(pid)] for pid in waiting} == {
        Path("/proc/self/oom_score_adj").read_text()
    }


def test_control_groups_are_removed_with_the_service(start_judge: Any) -> None:
    from app.sandbox import cgroup

    if not cgroup.parents():
        pytest.skip("no control groups can be made here")
    judge = start_judge("--workers", "1")
    judge.prints("print(1)")
    assert _groups(judge.processes())
    pids = judge.processes()
    judge.process.terminate()
    judge.process.wait(20)
    assert not _groups(pids)


def _groups(pids: Any) -> list[str]:
    from app.sandbox import cgroup

    return [
        name
        for home in cgroup.parents()
        for name in os.listdir(home)
        if name.startswith("code-judge-") and int(name.rpartition("-")[2]) in pids
    ]
