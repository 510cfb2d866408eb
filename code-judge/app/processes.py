"""Child processes of the service: they end with their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from app.sandbox import kernel

_PACKAGE_PARENT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PATIENCE = 4.0


def spawn(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, keep: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start `code-judge <arguments>` with additional `environment`; the descriptors in `keep` stay open in
    it.
    """
    command = [sys.executable, "-m", "app.cli", *arguments]
    return spawn_command(command, environment, keep, folder=_PACKAGE_PARENT)


def spawn_command(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    keep: Sequence[int] = (),
    folder: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process ends, and that a Ctrl-C at the terminal does not
    reach.
    """
    parent = os.getpid()
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        pass_fds=list(keep),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: kernel.die_with_parent(parent),
    )


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask the processes to end, wait a moment, then kill the rest. Returns when all are gone."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
