"""Workers on other machines join by REDIS_URI alone; a machine that goes down loses nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_service import CODE_JUDGE, Judge, descendants, environment, eventually, running

PORT = 16379


def _allowed() -> bool:
    """Whether this user may make network namespaces and connect them."""
    if os.getuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _allowed(), reason="needs root, iproute2 and network namespaces")


class Host:
    """A machine with workers: a network namespace with one cable to ours."""

    def __init__(self, number: int) -> None:
        self.ours, theirs = f"10.203.{number}.1", f"10.203.{number}.2"
        self.cable = f"cj{os.getpid() % 100000}h{number}"
        self._namespace = subprocess.Popen(["unshare", "-n", "sleep", "600"], stdin=subprocess.DEVNULL)
        target = str(self._namespace.pid)
        host = os.readlink("/proc/self/ns/net")
        assert eventually(lambda: os.readlink(f"/proc/{target}/ns/net") != host, 5)
        _ip("link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", target)
        _ip("addr", "add", f"{self.ours}/30", "dev", self.cable)
        _ip("link", "set", self.cable, "up")
        self._enter = ["nsenter", "-t", target, "-n"]
        _run([*self._enter, "ip", "addr", "add", f"{theirs}/30", "dev", "eth0"])
        _run([*self._enter, "ip", "link", "set", "eth0", "up"])
        self.workers: subprocess.Popen[bytes] | None = None

    def start_workers(self) -> None:
        """`python run_workers.py` with one worker."""
        settings = {"REDIS_URI": f"redis://{self.ours}:{PORT}", "MAX_WORKERS": "1", "MAX_EXECUTION_TIME": "3"}
        settings["PRELOAD"] = "json"
        command = [*self._enter, sys.executable, "run_workers.py"]
        self.workers = subprocess.Popen(command, cwd=CODE_JUDGE, env=environment(**settings))

    def cut_the_cable(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        _run([*self._enter, "ip", "link", "set", "eth0", "down"])

    def mend_the_cable(self) -> None:
        """It works again."""
        _run([*self._enter, "ip", "link", "set", "eth0", "up"])

    def power_off(self) -> None:
        """Kill every process of the host's workers."""
        if self.workers is not None:
            for pid in (self.workers.pid, *descendants(self.workers.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.workers.wait()
            self.workers = None

    def close(self) -> None:
        """Stop all, and remove the namespace with its cable."""
        self.power_off()
        self._namespace.kill()
        self._namespace.wait()
        subprocess.run(["ip", "link", "del", self.cable], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Judge, list[Host]]]:
    """A web process and a Redis here, a worker on each of two other hosts."""
    from app import embedded

    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        hosts = [Host(number) for number in (1, 2)]
        for host in hosts:
            stack.callback(host.close)
        bind = ["127.0.0.1", *(host.ours for host in hosts)]
        options = [
            "--port",
            str(PORT),
            "--bind",
            *bind,
            "--protected-mode",
            "no",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        server = subprocess.Popen([embedded.binary(), *options], stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        judge = stack.enter_context(_web(folder))
        for host in hosts:
            host.start_workers()
        assert eventually(lambda: judge.get("/status")["num_workers"] == 2, 20)
        yield judge, hosts


@contextlib.contextmanager
def _web(folder: Path) -> Iterator[Judge]:
    """The known start command, without workers of its own."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"REDIS_URI": f"redis://127.0.0.1:{PORT}", "RUN_WORKERS": "0", "MAX_EXECUTION_TIME": "3"}
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--log-level", "warning"]
    process: Any = subprocess.Popen(command, cwd=CODE_JUDGE, env=environment(**settings))
    judge = Judge(f"http://127.0.0.1:{port}", process)
    try:

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return judge.request("GET", "/status")[0] == 200
            return False

        assert eventually(answers, 20)
        yield judge
    finally:
        process.terminate()
        process.wait(20)


def _in_background(judge: Judge, count: int) -> tuple[threading.Thread, list[Any]]:
    items = [
        {"sub_id": str(n), "solution": f"import time; time.sleep(0.2); print({n})"} for n in range(count)
    ]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(judge.post("/run/batch", {"submissions": items})))
    thread.start()
    return thread, answers


def _all_true(answers: list[Any], count: int) -> bool:
    results = answers[0]["results"]
    return [result["stdout"] for result in results] == [f"{n}\n" for n in range(count)]


def test_both_hosts_take_jobs(cluster: tuple[Judge, list[Host]]) -> None:
    judge, _ = cluster
    program = {"solution": "import time; time.sleep(0.5)"}
    started = time.monotonic()
    answer = judge.post("/run/batch", {"submissions": [program] * 4})
    assert all(result["run_success"] for result in answer["results"])
    assert time.monotonic() - started < 4 * 0.5  # one worker alone would need that


def test_a_host_without_power_loses_nothing(cluster: tuple[Judge, list[Host]]) -> None:
    judge, hosts = cluster
    thread, answers = _in_background(judge, 12)
    time.sleep(0.5)
    hosts[0].power_off()
    thread.join(30)
    assert _all_true(answers, 12), answers
    assert eventually(lambda: judge.get("/status")["num_workers"] == 1, 8)
    hosts[0].start_workers()
    assert eventually(lambda: judge.get("/status")["num_workers"] == 2, 20)


def test_a_host_whose_cable_is_cut_in_mid_job_loses_nothing_and_comes_back(
    cluster: tuple[Judge, list[Host]],
) -> None:
    judge, hosts = cluster
    thread, answers = _in_background(judge, 12)
    time.sleep(0.5)
    hosts[1].cut_the_cable()
    thread.join(30)
    assert _all_true(answers, 12), answers
    hosts[1].mend_the_cable()
    assert eventually(lambda: judge.get("/status")["num_workers"] == 2, 30)
    assert judge.prints("print('again')") == "again\n"


def test_a_serve_with_a_given_redis_shares_the_work(
    cluster: tuple[Judge, list[Host]], tmp_path: Path
) -> None:
    judge, _ = cluster
    with running(
        tmp_path,
        "--workers",
        "1",
        REDIS_URI=f"redis://127.0.0.1:{PORT}",
        PRELOAD="json",
        MAX_EXECUTION_TIME="3",
    ):
        assert eventually(lambda: judge.get("/status")["num_workers"] == 3, 10)
