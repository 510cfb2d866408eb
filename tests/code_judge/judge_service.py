"""Starts the real service: `code-judge serve` with its embedded server, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Names that a program finds in its /tmp, as the interpreter lies there: none, but in a clone below /tmp.
SHOWN = {prefix.split("/")[2] for prefix in (sys.prefix, sys.base_prefix) if prefix.startswith("/tmp/")}
CODE_JUDGE = Path(__file__).resolve().parents[2] / "code-judge"
_OURS = ("REDIS_URI", "RUN_WORKERS", "CODE_JUDGE_TOKEN", "CODE_JUDGE_ALLOW_UNSAFE", "CODE_JUDGE_WITHOUT")


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without the service's settings, and with the given ones."""
    return {name: value for name, value in os.environ.items() if name not in _OURS} | settings


class Judge:
    """A running service and a client of it."""

    def __init__(self, url: str, process: subprocess.Popen[str], token: str | None = None) -> None:
        self.url = url
        self.process = process
        self.token = token

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any, dict[str, str]]:
        """Return status, JSON and headers of an answer, whatever its status."""
        headers = {"content-type": "application/json"}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read()), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null"), dict(error.headers)

    def get(self, path: str) -> Any:
        """The JSON of a good answer to a GET."""
        status, content, _ = self.request("GET", path)
        assert status == 200, content
        return content

    def post(self, path: str, content: Any) -> Any:
        """The JSON of a good answer to a POST."""
        status, answer, _ = self.request("POST", path, json.dumps(content).encode())
        assert status == 200, answer
        return answer

    def run(self, solution: str, **fields: Any) -> dict[str, Any]:
        """Run one Python program by /run."""
        return self.post("/run", {"type": "python", "solution": solution, **fields})

    def prints(self, solution: str, **fields: Any) -> str:
        """The stdout of a program that must succeed."""
        result = self.run(solution, **fields)
        assert result["run_success"], result
        return result["stdout"]

    def processes(self) -> dict[int, str]:
        """Every live process that descends from the service: {pid: command line}."""
        return descendants(self.process.pid)

    def worker_pids(self) -> list[int]:
        """The worker processes."""
        return self._pids("code-judge worker ")

    def web_pids(self) -> list[int]:
        """The web processes."""
        return self._pids("code-judge web")

    def manager_pid(self) -> int:
        """The process that keeps the workers alive."""
        (pid,) = self._pids("code-judge workers")
        return pid

    def redis_pid(self) -> int:
        """The embedded server."""
        return next(pid for pid, line in self.processes().items() if "valkey-server" in line)

    def _pids(self, title: str) -> list[int]:
        return [pid for pid, line in self.processes().items() if line.startswith(title)]


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def descendants(root: int) -> dict[int, str]:
    """Every live process below `root`, with its command line."""
    parents = {int(name): parent_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    lines = {}
    for pid in found - {root}:
        with contextlib.suppress(OSError):
            lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return lines


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def eventually(condition: Callable[[], Any], seconds: float) -> bool:
    """Whether `condition` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


@contextlib.contextmanager
def running(folder: Path, *arguments: str, python: str = sys.executable, **settings: str) -> Iterator[Judge]:
    """Run `code-judge serve` with additional arguments and settings; a setting `uid` drops to that user,
    `stderr` names the file that gets its log.
    """
    ready = folder / "url"
    uid = settings.pop("uid", None)
    log = settings.pop("stderr", None)
    command = [
        python,
        "-m",
        "app.cli",
        "serve",
        "--port",
        "0",
        "--ready-file",
        str(ready),
        "--die-with-parent",
    ]
    options: dict[str, Any] = {"user": int(uid), "group": int(uid), "extra_groups": []} if uid else {}
    if log:
        options["stderr"] = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=CODE_JUDGE,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    if log:
        os.close(options["stderr"])
    try:
        assert eventually(lambda: ready.exists() or process.poll() is not None, 40)
        assert process.poll() is None, "the service did not start; its message is above"
        yield Judge(ready.read_text().strip(), process, settings.get("CODE_JUDGE_TOKEN"))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()
