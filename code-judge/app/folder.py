"""Private folders in the temp directory that go away with their process, at the latest when the next one
starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

_YOUTH = 60.0  # seconds in which a folder may not be locked yet


@contextlib.contextmanager
def private_folder(kind: str) -> Iterator[str]:
    """Make a folder that only this user can enter, and remove it at the end. Also removes those that dead
    processes
    of the same user and kind have left."""
    prefix = f"code-judge-{kind}-{os.getuid()}-"
    _sweep(prefix)
    folder = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")
    owner = os.getpid()
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # held until the last process that has it ends, whatever ends it
    try:
        yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(prefix: str) -> None:
    for entry in os.scandir(tempfile.gettempdir()):
        if entry.name.startswith(prefix):
            with contextlib.suppress(OSError):
                facts = entry.stat(follow_symlinks=False)
                old = time.time() - facts.st_ctime > _YOUTH
                if facts.st_uid == os.getuid() and old and _abandoned(entry.path):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _abandoned(folder: str) -> bool:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
