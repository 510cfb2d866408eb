"""One program with a log and a time limit. Nothing that it started outlives it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PATIENCE_SECONDS = 30.0
_POLL_SECONDS = 0.2

STOP = threading.Event()
"""Set it to end what runs. A signal's handler that raised instead could do so while a program is being started, which
then nobody knows of."""


class Stopped(Exception):
    """`STOP` was set while a program ran."""


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        status: its exit status, negative for a signal; None: the time limit ended it.
        seconds: how long it ran.
        log: where its output is.
    """

    status: int | None
    seconds: float
    log: Path

    @property
    def reason(self) -> str:
        """Empty if all went well."""
        if self.status == 0:
            return ""
        if self.status is None:
            return f"stopped by the time limit after {self.seconds:.0f} s"
        if self.status < 0:
            return f"ended by signal {-self.status} after {self.seconds:.0f} s"
        return f"ended with status {self.status} after {self.seconds:.0f} s"


def tail(log: Path, lines: int = 15) -> list[str]:
    """The last lines of a log, for a terminal: control characters are left out, long lines cut."""
    with contextlib.suppress(OSError):
        text = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        return ["".join(c for c in line if c.isprintable())[:200] for line in text.splitlines()[-lines:]]
    return []


def run(
    command: Sequence[str], log: Path, limit_s: float, environment: Mapping[str, str] = os.environ
) -> Ended:
    """Run a program in a session of its own until it ends or the limit is reached.

    Whatever ends this call first stops the program and all its descendants.

    Args:
        log: gets standard output and standard error.

    Raises:
        Stopped: `STOP` was set.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=dict(environment), start_new_session=True,
        )  # fmt: skip
        status: int | None = None
        try:
            while status is None and not STOP.is_set() and time.monotonic() - begin < limit_s:
                status = _waited(process, min(_POLL_SECONDS, limit_s))
        finally:
            stop(process)
    if STOP.is_set():
        raise Stopped
    return Ended(status, time.monotonic() - begin, log)


def _waited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def stop(process: subprocess.Popen[bytes], patience_s: float = _PATIENCE_SECONDS) -> None:
    """Ask a process to stop, wait, then kill what is left of it and of what it started."""
    # Ray's daemons are in sessions of their own, and orphans have another parent: who belongs is noted before.
    family: list[psutil.Process] = []
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    for member in family:
        # psutil compares start times: a reused number is no member.
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, 9)
    process.wait()
    psutil.wait_procs(family, timeout=5)
