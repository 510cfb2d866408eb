"""Child processes of the service: they end with their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from app.sandbox import kernel
from app.settings import CHECKED

log = logging.getLogger("code-judge")

_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PATIENCE = 4.0
_ARG_START = 45  # place of arg_start in /proc/PID/stat, counted from behind the name; see proc(5)


class Forked:
    """A child that `fork` has made, with the part of Popen's interface that is used here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, as soon as there is one. Raises TimeoutExpired."""
        ended([self], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(["fork"], timeout or 0.0)
        return status

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None:  # else the number may be another process's by now
            os.kill(self.pid, number)


Process = subprocess.Popen[bytes] | Forked


def fork(name: str, main: Callable[[], None], close: Sequence[int] = ()) -> Forked:
    """Run `main` in a child named `code-judge <name>`, which starts without an interpreter's start and the imports of
    this one. This process must have one thread only.

    The child ends with status 0 when `main` returns, with that of a SystemExit, or with 1. It is killed when this
    process ends, and a Ctrl-C at the terminal does not reach it. close: descriptors that it must not hold.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if pid == 0:
        _become(name, main, close, parent)
    return Forked(pid)


def _become(name: str, main: Callable[[], None], close: Sequence[int], parent: int) -> NoReturn:
    status = 1
    try:
        kernel.die_with_parent(parent)
        os.setsid()
        for descriptor in close:
            os.close(descriptor)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        set_title(f"code-judge {name}")
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        log.exception("%s failed", name)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def set_title(title: str) -> None:
    """What `ps` shows as the command line of this process. Cut to the length of the present one."""
    with open("/proc/self/stat") as file:
        facts = file.read().rpartition(")")[2].split()
    start, end = int(facts[_ARG_START]), int(facts[_ARG_START + 1])
    if end > start > 0:
        text = title.encode()[: end - start - 1]
        ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def spawn(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `code-judge <arguments>` in an interpreter of its own, as a process with threads must."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    return spawn_command(command, {CHECKED: "1"}, folder=_PACKAGE_PARENT)


def spawn_command(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process ends, and that a Ctrl-C at the terminal does not
    reach.
    """
    parent = os.getpid()
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: kernel.die_with_parent(parent),
    )


def ended(processes: Sequence[Process], timeout: float | None) -> bool:
    """Wait until one of the processes has ended, or for `timeout` seconds. Whether one has."""
    if any(process.poll() is not None for process in processes):
        return True
    with contextlib.ExitStack() as stack:
        poller = select.poll()
        for process in processes:
            pidfd = os.pidfd_open(process.pid)
            stack.callback(os.close, pidfd)
            poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(None if timeout is None else max(0.0, timeout) * 1000))


def stop(processes: Sequence[Process], hurry_after: float = _PATIENCE) -> None:
    """Ask the processes to end, after `hurry_after` seconds once more, then kill the rest. Returns when all
    are gone.
    """
    for patience in (min(hurry_after, _PATIENCE), _PATIENCE - hurry_after):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + patience
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.01, deadline - time.monotonic()))
    for process in processes:
        process.kill()
        process.wait()
