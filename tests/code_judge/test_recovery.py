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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from judge_service import CODE_JUDGE, Judge, alive, environment, eventually, running

from app import embedded
from app.job import Job, Keys


@pytest.fixture(scope="module")
def sturdy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """One service for all tests that kill a part of it: it must be whole again after each."""
    settings = {"MAX_EXECUTION_TIME": "3", "PRELOAD": "json", "MAX_QUEUE_WORK_LIFE_TIME": "10"}
    with running(tmp_path_factory.mktemp("sturdy"), "--workers", "2", "--web", "2", **settings) as service:
        yield service


@pytest.fixture
def whole(sturdy: Judge) -> Judge:
    """The same, with all parts there, and none so young that it would be restarted only after a pause."""
    assert sturdy.prints("print(1)") == "1\n"
    assert eventually(lambda: len(sturdy.worker_pids()) == len(sturdy.web_pids()) == 2, 3)
    assert eventually(lambda: min(map(_age, sturdy.processes())) > 1.1, 3)
    return sturdy


def _age(pid: int) -> float:
    """Seconds since a process was made; of no interest if it is gone, or of a kind that comes and goes."""
    with contextlib.suppress(OSError):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if line.startswith(b"code-judge"):
            ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
            uptime = float(Path("/proc/uptime").read_text().split()[0])
            return uptime - ticks / os.sysconf("SC_CLK_TCK")
    return 60.0


def _redis(judge: Judge) -> Any:
    """A client of the embedded server."""
    line = judge.processes()[judge.redis_pid()]
    return redis.Redis(unix_socket_path=line.partition("unixsocket:")[2])


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


def test_a_zygote_killed_in_mid_job_loses_nothing(whole: Judge) -> None:
    thread, answers = _in_background(lambda: whole.run("import time; time.sleep(0.8); print('true result')"))
    time.sleep(0.4)
    nursery = [pid for pid, line in whole.processes().items() if "app.sandbox.nursery" in line]
    newest = max(pid for pid in nursery if any(p != pid for p in nursery))
    os.kill(newest, signal.SIGKILL)
    thread.join(10)
    assert answers[0]["stdout"] == "true result\n" or not answers[0]["run_success"]
    assert whole.prints("print(2)") == "2\n"


def test_all_workers_and_the_nursery_killed_at_once_come_back(whole: Judge) -> None:
    workers = whole.worker_pids()
    for pid in [pid for pid, line in whole.processes().items() if "nursery" in line or pid in workers]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert whole.prints("print(2)") == "2\n"


def test_the_manager_killed_comes_back_and_takes_its_orphans_along(whole: Judge) -> None:
    workers = whole.worker_pids()
    thread, answers = _loaded(whole, 12, 0.1)
    time.sleep(0.3)
    os.kill(whole.manager_pid(), signal.SIGKILL)
    assert eventually(lambda: not any(map(alive, workers)), 2)
    thread.join(20)
    assert _all_true(answers[0]["results"]), answers


def test_the_server_killed_under_load_comes_back_and_every_job_is_answered(whole: Judge) -> None:
    thread, answers = _loaded(whole, 40, 0.05)
    time.sleep(0.4)
    os.kill(whole.redis_pid(), signal.SIGKILL)
    started = time.monotonic()
    assert whole.prints("print('serving')") == "serving\n"
    assert time.monotonic() - started < 2.5  # 0.2 s where nobody else needs the processors
    thread.join(30)
    assert _all_true(answers[0]["results"]), answers


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


def _loaded(judge: Any, count: int, seconds: float) -> tuple[threading.Thread, list[Any]]:
    items = [
        {"sub_id": str(n), "solution": f"import time; time.sleep({seconds}); print({n})"}
        for n in range(count)
    ]
    return _in_background(lambda: judge.post("/run/batch", {"submissions": items}))


def _all_true(results: list[dict[str, Any]]) -> bool:
    return [result["stdout"] for result in results] == [f"{n}\n" for n in range(len(results))]


def test_all_workers_killed_under_load_lose_nothing_and_return_within_a_second(whole: Judge) -> None:
    thread, answers = _loaded(whole, 20, 0.1)
    time.sleep(0.4)
    before = whole.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: len(set(whole.worker_pids()) - set(before)) == 2, 1)
    thread.join(30)
    assert _all_true(answers[0]["results"]), answers


def test_a_stopped_worker_is_ended_and_its_job_done_by_another(whole: Judge) -> None:
    threads = [
        _in_background(lambda: whole.run("import time; time.sleep(0.5); print('true')")) for _ in range(2)
    ]
    assert eventually(lambda: whole.get("/status")["running"] == 2, 2)
    os.kill(whole.worker_pids()[0], signal.SIGSTOP)
    started = time.monotonic()
    for thread, answers in threads:
        thread.join(20)
        assert answers[0]["stdout"] == "true\n"
    assert time.monotonic() - started < 3 + 2


def test_a_web_process_killed_with_requests_in_flight_is_replaced_and_the_others_go_on(whole: Judge) -> None:
    before = whole.web_pids()
    asked = [
        _in_background(lambda: _quietly(lambda: whole.run("import time; time.sleep(0.7); print('answered')")))
        for _ in range(8)
    ]
    time.sleep(0.4)
    os.kill(before[0], signal.SIGKILL)
    answers = [(thread.join(10), answer)[1][0] for thread, answer in asked]  # none waits in vain
    assert all(answer is None or answer["stdout"] == "answered\n" for answer in answers), answers
    assert eventually(lambda: len(whole.web_pids()) == 2 and before[0] not in whole.web_pids(), 2)


def test_the_jobs_of_a_web_process_that_died_are_stopped(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="60", DRAIN_TIMEOUT="1")
    judge.prints("print(1)")
    threads = [_in_background(lambda: _quietly(lambda: judge.run("while True: pass")))[0] for _ in range(4)]
    assert eventually(lambda: judge.get("/status")["running"] == 1, 3)
    os.kill(judge.web_pids()[0], signal.SIGKILL)
    for thread in threads:
        thread.join(5)  # each client sees its connection end
    assert not any(thread.is_alive() for thread in threads)
    assert judge.prints("print('in spite of all')", options={"timeout": "5"}) == "in spite of all\n"


def test_a_server_that_hangs_for_a_while_loses_nothing(whole: Judge) -> None:
    thread, answers = _loaded(whole, 12, 0.1)
    time.sleep(0.3)
    with _stopped(whole.redis_pid()):
        time.sleep(2)
    thread.join(20)
    assert _all_true(answers[0]["results"]), answers


def test_a_server_that_hangs_for_good_makes_every_job_retryable(start_judge: Any) -> None:
    settings = {"MAX_QUEUE_WORK_LIFE_TIME": "0.5", "MAX_EXECUTION_TIME": "0.5"}
    judge = start_judge("--workers", "1", **settings)
    judge.prints("print(1)")
    with _stopped(judge.redis_pid()):
        started = time.monotonic()
        one, single = _in_background(lambda: judge.run("print(1)"))
        many, batch = _in_background(
            lambda: judge.post("/run/batch", {"submissions": [{"solution": ""}] * 3})
        )
        one.join(20)
        many.join(20)
        assert time.monotonic() - started < 8
    results = [single[0], *batch[0]["results"]]
    assert all(result["retryable"] and result["reason"] == "queue_timeout" for result in results), results


def test_a_server_that_refuses_for_a_while_loses_nothing(whole: Judge) -> None:
    server = _redis(whole)
    thread, answers = _loaded(whole, 12, 0.1)
    time.sleep(0.3)
    server.config_set("maxmemory", 1)  # every command that adds something is an error from here on
    time.sleep(1)
    server.config_set("maxmemory", 0)
    thread.join(20)
    assert _all_true(answers[0]["results"]), answers


def test_a_job_that_nobody_can_read_harms_no_other(whole: Judge) -> None:
    server = _redis(whole)
    workers = whole.worker_pids()
    for job in (b"no JSON", b"{}", b'{"id": "x", "reply": "code-judge:x", "of": "another version"}'):
        server.xadd("code-judge:jobs", {"job": job})
    server.xadd("code-judge:jobs", {"something": "else"})
    assert whole.prints("print(1)") == "1\n"
    answer = server.blpop("code-judge:x", 5)
    assert answer and b'"retryable":true' in answer[1]
    assert eventually(lambda: whole.get("/status")["running"] == 0, 3)
    assert whole.worker_pids() == workers


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_without_persistence_a_killed_server_loses_nothing_that_somebody_waits_for(start_judge: Any) -> None:
    judge = start_judge("--workers", "2", MAX_EXECUTION_TIME="3", REDIS_PERSIST="0")
    thread, answers = _loaded(judge, 30, 0.05)
    time.sleep(0.4)
    os.kill(judge.redis_pid(), signal.SIGKILL)
    thread.join(30)
    assert _all_true(answers[0]["results"]), answers


def test_jobs_survive_the_whole_service_if_there_is_a_data_folder(start_judge: Any, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    judge = start_judge("--workers", "1", MAX_EXECUTION_TIME="30", DATA_DIR=data)
    batch = {"submissions": [{"solution": "import time; time.sleep(20)"}] * 3}
    thread, _ = _in_background(lambda: _quietly(lambda: judge.post("/run/long-batch", batch)))
    assert eventually(lambda: judge.get("/status")["queue"] == 2, 5)
    time.sleep(1.2)  # the file is synced once a second
    for pid in [judge.process.pid, *judge.processes()]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    thread.join(5)
    judge.process.wait()
    waiting = _somebody_waits(data, tmp_path)
    again = start_judge("--workers", "1", MAX_EXECUTION_TIME="30", DATA_DIR=data, DRAIN_TIMEOUT="1")
    status = again.get("/status")
    assert status["queue"] + status["running"] == 3
    # As soon as nobody waits for them any more, they are stopped.
    _redis(again).delete(waiting)
    assert again.prints("print(2)", options={"timeout": "5"}) == "2\n"


def _somebody_waits(data: str, folder: Path) -> str:
    """Leave the heartbeat of the web process that had the jobs, without which they are dropped. Returns its key."""
    server = embedded.start(str(folder), data=data)
    try:
        with redis.Redis.from_url(embedded.uri(str(folder))) as client:
            ((_, fields),) = client.xrange("code-judge:long-jobs", count=1)
            key = Keys.alive(Job.from_bytes(fields[b"job"]).reply)
            client.set(key, 1, px=120_000)
            return key
    finally:
        server.terminate()
        server.wait()


def test_a_data_folder_serves_one_service_at_a_time(start_judge: Any, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    start_judge("--workers", "1", DATA_DIR=data)
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
    done = subprocess.run(
        command, cwd=CODE_JUDGE, env=environment(DATA_DIR=data), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2 and "DATA_DIR" in done.stderr and data in done.stderr
