"""Puts a web process's jobs into the streams and hands the answers to those who wait: one connection that sends, one
that listens, whatever the load.

Nothing rests on a connection: whenever one was lost, and whenever this process was taken for dead, jobs that are no
longer in their stream and have no answer are put in again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import redis

from app.connection import connect_async
from app.job import Job, Keys
from app.outage import Outage
from app.settings import Settings, without_password

log = logging.getLogger("code-judge.gateway")

_LISTEN_SECONDS = 5
_SEND_AT_ONCE = 256
_READ_AT_ONCE = 256
_BEAT = 1.0
_BEAT_LIFE = 3  # seconds after which nobody is believed to wait here any more
_CROWD = 8  # waiting jobs from which on answers are left to gather, so that one round trip brings several
_GATHER = 0.00025  # seconds a waiting job: a small part of what each waits anyway
_LONGEST_GATHER = 0.02
_RETRY = 0.1
_FAREWELL = 1.0  # seconds for the last commands
_BACKLOG_AGE = 0.05  # seconds that a measured length of the queue is believed

# Of the entries ARGV of the stream KEYS[1], which are still in it: XRANGE without the jobs' content on the wire.
_WHICH_EXIST = """
local found = {}
for i, entry in ipairs(ARGV) do found[i] = #redis.call('XRANGE', KEYS[1], entry, entry) end
return found
"""


@dataclass(eq=False)
class Waiting:
    """A job and the future of its answer."""

    job: Job
    stream: str
    answer: asyncio.Future[dict[str, Any]]
    entry: bytes | None = None  # in the stream, once it is sent
    left: bool = False  # nobody waits for it any more


class Postbox:
    """The address of one web process."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self.keys = keys
        self.reply = keys.reply(secrets.token_hex(8))
        self.waiting: dict[str, Waiting] = {}
        self._outbox: list[Waiting] = []
        self._withdrawn: list[Waiting] = []
        self._wake = asyncio.Event()
        self._backlog = 0
        self._backlog_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._address = settings.redis_address
        self._outage = Outage(log, without_password(self._address))

    async def start(self) -> None:
        """Begin to send and to listen. Redis need not be there yet."""
        self.redis: Any = connect_async(self._address)
        self._tasks = [
            asyncio.create_task(_for_ever(work)) for work in (self._send, self._listen, self._beat)
        ]

    async def stop(self) -> None:
        """Stop both; waiting jobs get no answer any more."""
        pending = set(self._tasks)
        while pending:
            # Again: a cancellation is lost in the Redis client if a timeout of its own ends at that moment.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=_FAREWELL)
        pipe = self.redis.pipeline(transaction=False)
        for waiting in self._withdrawn:
            if waiting.entry is not None:
                pipe.xdel(waiting.stream, waiting.entry)
        pipe.delete(self.reply, Keys.alive(self.reply))
        with contextlib.suppress(redis.RedisError, OSError):
            await asyncio.wait_for(pipe.execute(), _FAREWELL)
        await self.redis.aclose()

    def post(self, job: Job, stream: str) -> Waiting:
        """Send a job. Whoever calls this calls `forget` in the end."""
        waiting = Waiting(job, stream, asyncio.get_running_loop().create_future())
        self.waiting[job.id] = waiting
        self._outbox.append(waiting)
        self._wake.set()
        return waiting

    def withdraw(self, waiting: Waiting) -> None:
        """Delete a job from its stream: one that waits is never run, one that runs is stopped by its worker."""
        waiting.left = True
        self._withdrawn.append(waiting)
        self._wake.set()

    def forget(self, waiting: Waiting) -> None:
        """Nobody awaits the answer any more, be it there or not."""
        del self.waiting[waiting.job.id]

    def backlog(self) -> int:
        """Jobs that wait or run, as far as known."""
        return self._backlog + len(self._outbox)

    async def fresh_backlog(self) -> int:
        """The same, asked for if it is old. Only one request asks at a time; the others believe what is known.
        Raises redis.RedisError.
        """
        if time.monotonic() - self._backlog_at > _BACKLOG_AGE:
            self._backlog_at = time.monotonic()
            await self.measure_backlog()
        return self.backlog()

    async def measure_backlog(self) -> int:
        """Jobs that wait or run anywhere. Raises redis.RedisError."""
        pipe = self.redis.pipeline(transaction=False)
        for stream in self.keys.streams:
            pipe.xlen(stream)
        self._note_backlog(sum(await pipe.execute()))
        return self._backlog

    def _note_backlog(self, length: int) -> None:
        self._backlog, self._backlog_at = length, time.monotonic()

    async def _send(self) -> None:
        """Put into the streams what is in the outbox, everything that has gathered in one round trip."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox or self._withdrawn:
                self._outbox = [w for w in self._outbox if not (w.left or w.answer.done())]
                batch = self._outbox[:_SEND_AT_ONCE]
                gone = self._withdrawn[:_SEND_AT_ONCE]
                pipe = self.redis.pipeline(transaction=False)
                for waiting in batch:
                    pipe.xadd(waiting.stream, {"job": waiting.job.to_bytes()})
                for waiting in gone:
                    if waiting.entry is not None:
                        pipe.xdel(waiting.stream, waiting.entry)
                measures = time.monotonic() - self._backlog_at > _BACKLOG_AGE
                for stream in self.keys.streams if measures else ():
                    pipe.xlen(stream)

                answers: list[Any] = []
                if await self._reached(pipe.execute(), keep=answers.extend):
                    for waiting, entry in zip(batch, answers, strict=False):
                        waiting.entry = entry
                        if waiting.left:  # while it was on its way
                            self._withdrawn.append(waiting)
                    del self._outbox[: len(batch)], self._withdrawn[: len(gone)]
                    if measures:
                        self._note_backlog(sum(answers[-len(self.keys.streams) :]))
                    else:
                        self._backlog += len(batch)  # until the next measurement

    async def _listen(self) -> None:
        """Hand every answer that arrives to the request that waits for it."""
        while True:
            if not await self._reached(self._catch_up()):
                continue
            while await self._reached(
                self.redis.blmpop(_LISTEN_SECONDS, 1, self.reply, direction="LEFT", count=_READ_AT_ONCE),
                keep=self._deliver,
            ):
                if len(self.waiting) >= _CROWD:
                    await asyncio.sleep(min(_GATHER * len(self.waiting), _LONGEST_GATHER))

    async def _catch_up(self) -> None:
        """What happened while there was no connection is unknown: show up, read what is there, send again what is
        not."""
        # From here on no worker drops our jobs.
        await self.redis.set(Keys.alive(self.reply), 1, ex=_BEAT_LIFE)
        while popped := await self.redis.lmpop(1, self.reply, direction="LEFT", count=_READ_AT_ONCE):
            self._deliver(popped)
        await self._send_lost_again()

    async def _send_lost_again(self) -> None:
        """Put in again what is neither in its stream nor answered. If its answer is on its way it is run twice: that
        does no harm.
        """
        queued = {id(waiting) for waiting in self._outbox}
        for stream in self.keys.streams:
            sent = [
                w
                for w in self.waiting.values()
                if w.stream == stream and w.entry is not None and not w.answer.done() and id(w) not in queued
            ]
            if sent:
                found = await self.redis.eval(_WHICH_EXIST, 1, stream, *(w.entry for w in sent))
                lost = [w for w, there in zip(sent, found, strict=True) if not there and not w.left]
                if lost:
                    log.debug("jobs sent again: %d", len(lost))
                self._outbox += lost
        self._wake.set()

    async def _beat(self) -> None:
        """Tell the workers every second that somebody here waits for answers."""
        first = True
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                before = await self.redis.set(Keys.alive(self.reply), 1, ex=_BEAT_LIFE, get=True)
                if before is None and not first:  # workers may have dropped our jobs by now
                    await self._send_lost_again()
                first = False
            await asyncio.sleep(_BEAT)

    def _deliver(self, popped: Any) -> None:
        for message in popped[1] if popped else []:
            answer = orjson.loads(message)
            waiting = self.waiting.get(answer["id"])
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_result(answer["result"])

    async def _reached(self, call: Awaitable[Any], keep: Callable[[Any], Any] | None = None) -> bool:
        """Await a call to Redis and hand its answer to `keep`; False, after a pause, if Redis was not reached, or
        would not do it: it may be loading, or out of memory or disk.
        """
        try:
            answer = await call
        except (redis.RedisError, OSError) as error:
            self._outage.away(error)
            await asyncio.sleep(_RETRY)
            return False
        if keep is not None:
            keep(answer)
        self._outage.back()
        return True


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """An error of ours costs a log entry and a moment, not the web process."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("an error of the postbox; going on")
            await asyncio.sleep(_RETRY)
