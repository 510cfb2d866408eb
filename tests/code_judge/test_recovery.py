"""What dies is replaced, what was accepted is answered, and nothing stays behind."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from judge_service import CODE_JUDGE, alive, environment, eventually


def _in_background(call: Any) -> tuple[threading.Thread, list[Any]]:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_worker_killed_in_mid_job_loses_nothing(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="3")
    judge.prints("print(1)")
    started = time.monotonic()
    thread, answers = _in_background(lambda: judge.run("import time; time.sleep(1); print('true result')"))
    time.sleep(0.4)
    (worker,) = judge.worker_pids()
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: judge.worker_pids() not in ([], [worker]), 2.5)
    thread.join(10)
    assert time.monotonic() - started < 3 + 2
    assert answers[0]["stdout"] == "true result\n" or answers[0]["retryable"]
    assert judge.prints("print(2)") == "2\n"


def test_a_zygote_killed_in_mid_job_loses_nothing(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="3")
    judge.prints("print(1)")
    thread, answers = _in_background(lambda: judge.run("import time; time.sleep(0.8); print('true result')"))
    time.sleep(0.4)
    nursery = [pid for pid, line in judge.processes().items() if "app.sandbox.nursery" in line]
    newest = max(pid for pid in nursery if any(p != pid for p in nursery))
    os.kill(newest, signal.SIGKILL)
    thread.join(10)
    assert answers[0]["stdout"] == "true result\n" or not answers[0]["run_success"]
    assert judge.prints("print(2)") == "2\n"


def test_all_workers_and_the_nursery_killed_at_once_come_back(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", MAX_EXECUTION_TIME="3")
    judge.prints("print(1)")
    workers = judge.worker_pids()
    for pid in [pid for pid, line in judge.processes().items() if "nursery" in line or pid in workers]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert judge.prints("print(2)") == "2\n"


def test_the_manager_killed_comes_back_and_takes_its_orphans_along(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", MAX_EXECUTION_TIME="1")
    workers = judge.worker_pids()
    manager = next(
        pid
        for pid, line in judge.processes().items()
        if line.endswith("app.cli workers") and pid not in workers
    )
    os.kill(manager, signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, workers)), 2)
    assert judge.prints("print(1)") == "1\n"


def test_the_server_killed_under_load_comes_back_and_every_job_is_answered(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", MAX_EXECUTION_TIME="3")
    items = [{"sub_id": str(n), "solution": f"import time; time.sleep(0.05); print({n})"} for n in range(60)]
    thread, answers = _in_background(lambda: judge.post("/run/batch", {"submissions": items}))
    time.sleep(0.4)
    server = next(pid for pid, line in judge.processes().items() if "valkey-server" in line)
    os.kill(server, signal.SIGKILL)
    thread.join(30)
    results = answers[0]["results"]
    assert [result["stdout"] or result["retryable"] for result in results] == [f"{n}\n" for n in range(60)]


def test_a_clean_stop_leaves_no_process_and_no_folder(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", "--web", "2")
    judge.prints("print(1)")
    pids = [judge.process.pid, *judge.processes()]
    assert len(pids) >= 8
    judge.process.send_signal(signal.SIGINT)
    assert judge.process.wait(10) == 0
    assert eventually(lambda: not any(map(alive, pids)), 2)
    left = [
        p for kind in ("serve", "workers") for p in glob.glob(f"{tempfile.gettempdir()}/code-judge-{kind}-*")
    ]
    assert not [p for p in left if any(f"-{pid}-" in p for pid in pids)]


def test_a_killed_service_leaves_no_orphan(start_judge: Any) -> None:
    judge = start_judge("--workers", "2")
    judge.prints("print(1)")
    thread, _ = _in_background(lambda: _quietly(lambda: judge.run("while True: pass")))
    time.sleep(0.3)
    pids = list(judge.processes())
    judge.process.kill()
    judge.process.wait()
    assert eventually(lambda: not any(map(alive, pids)), 3), [pid for pid in pids if alive(pid)]
    thread.join(5)


def _quietly(call: Any) -> None:
    with contextlib.suppress(OSError):
        call()


def test_die_with_parent_stops_the_service_when_its_starter_ends(tmp_path: Path) -> None:
    ready = tmp_path / "url"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--die-with-parent", "--workers", "1"]
    arguments = [*command, "--ready-file", str(ready)]
    starter = f"import subprocess as s, time; print(s.Popen({arguments!r}).pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", starter], cwd=CODE_JUDGE, env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        service = int(parent.stdout.readline())
        assert eventually(ready.exists, 40)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert eventually(lambda: not alive(service), 8)
    assert eventually(lambda: not ready.exists(), 2)
