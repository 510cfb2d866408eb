"""RUN_WORKERS=1: one of a machine's web processes keeps the workers of that machine running."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable

from app.manager import plan_for
from app.processes import spawn, stop
from app.settings import Settings

_LOOK = 0.2  # seconds between two looks for the manager, or for the lock of a web process that died

log = logging.getLogger("code-judge.web")


@contextlib.asynccontextmanager
async def local_workers(
    settings: Settings, before_stop: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Keep one manager alive for all web processes of this user, machine and Redis. Raises Unsafe. At the
    end, `before_stop` is awaited first: other web processes may still need the workers.
    """
    if not settings.run_workers:
        yield
        return
    plan_for(settings)
    keeper = asyncio.create_task(_keep(settings))
    try:
        yield
        if before_stop is not None:
            await before_stop()
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def _keep(settings: Settings) -> None:
    """Hold the lock, or wait to inherit it from a web process that dies; run the manager while holding it."""
    name = hashlib.sha256(f"{settings.redis_address} {settings.redis_key_prefix}".encode()).hexdigest()[:16]
    path = os.path.join(tempfile.gettempdir(), f"code-judge-lock-{os.getuid()}-{name}")
    lock: int | None = None
    manager: subprocess.Popen[bytes] | None = None
    try:
        while True:
            if lock is None:
                lock = _acquire(path)
            elif manager is None or manager.poll() is not None:
                if manager is not None:
                    log.error(
                        "the workers' manager ended with status %s; starting another", manager.returncode
                    )
                manager = spawn(["workers"])
            await asyncio.sleep(0 if lock is not None and manager is None else _LOOK)
    finally:
        if manager is not None:
            stop([manager], hurry_after=1.0)  # nobody waits for what still runs
        if lock is not None:
            os.unlink(path)
            os.close(lock)


def _acquire(path: str) -> int | None:
    """The descriptor of the locked file, or None if another process has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path)):  # else its last holder has just removed it
            return lock
    os.close(lock)
    return None
