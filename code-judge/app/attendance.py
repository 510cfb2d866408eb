"""Attends the job that a worker runs: tells the others that somebody is at work on it, and learns that its client left.

A thread with a connection of its own does it, for the worker's own thread has a program's deadline to keep. A job that
ends within the first look costs nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import redis

from app.connection import connect
from app.job import Keys
from app.settings import Settings

EVERY = 0.25  # seconds between two looks
HELD_FOR_DEAD = 1.5  # seconds without a look after which a job's worker is held for dead
_YOUNG = 0.1  # seconds in which a job is left alone
_PATIENCE = 1.0  # seconds for Redis to answer
_SILENCE = 1.0  # seconds without a sign of life of the web process; in a new Redis it has none at first


@dataclass(eq=False)
class _Entry:
    stream: str
    id: bytes
    reply: str
    begun: float
    heard: float  # when its web process was last known to be alive


class Attendance:
    """One worker's. `begin` and `end` are called for every job, and only set a field."""

    def __init__(self, settings: Settings, consumer: str) -> None:
        self._consumer = consumer
        self._redis: Any = connect(settings.redis_address, _PATIENCE)
        self._current: _Entry | None = None
        self._left: _Entry | None = None
        threading.Thread(target=self._attend, name="attendance", daemon=True).start()

    def begin(self, stream: str, entry_id: bytes, reply: str) -> None:
        """The worker begins with a job, whose answer goes to `reply`."""
        now = time.monotonic()
        self._current = _Entry(stream, entry_id, reply, now, now)

    def end(self) -> None:
        """The worker is done with it."""
        self._current = None

    def left(self) -> bool:
        """Whether nobody waits for the current job any more."""
        return self._left is not None and self._left is self._current

    def _attend(self) -> None:
        while True:
            time.sleep(EVERY)
            entry = self._current
            if entry is not None and time.monotonic() - entry.begun > _YOUNG:
                with contextlib.suppress(redis.RedisError, OSError):
                    self._look(entry)

    def _look(self, entry: _Entry) -> None:
        pipe = self._redis.pipeline(transaction=False)
        # Resets the time that the entry counts as idle. An entry that its web process has deleted is not returned;
        # neither is one of a server that came back empty: there the job is in the queue anew.
        pipe.xclaim(entry.stream, Keys.GROUP, self._consumer, 0, [entry.id], justid=True)
        pipe.exists(Keys.alive(entry.reply))
        kept, alive = pipe.execute()
        now = time.monotonic()
        if alive:
            entry.heard = now
        if not kept or now - entry.heard > _SILENCE:
            self._left = entry
