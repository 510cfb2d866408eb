"""From a web process to the workers and back: one connection that sends, one that listens, whatever the
load.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import redis
import redis.asyncio

from app.job import Job, Keys, outcome
from app.settings import Settings

log = logging.getLogger("code-judge.gateway")

_LISTEN_SECONDS = 5
_ANSWER_GRACE = 5.0  # seconds beyond waiting and running before a job is given up
_BATCH_WINDOW = 64  # jobs of one batch that are in the queue at a time; the rest leaves room for others
_SEND_AT_ONCE = 256
_RETRY = 0.1
_BACKLOG_AGE = 0.05  # seconds that a known queue length is believed when it says that the queue is full


class Overloaded(Exception):
    """The queue is full. `seconds` is when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many jobs are waiting; ask again in {seconds} s")
        self.seconds = seconds


@dataclass
class _Waiting:
    job: Job
    stream: str
    answer: asyncio.Future[dict[str, Any]]


class Gateway:
    """The queue as a web process sees it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.redis_key_prefix)
        self._reply = self.keys.reply(secrets.token_hex(8))
        self._waiting: dict[str, _Waiting] = {}
        self._outbox: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._backlog = 0
        self._backlog_at = 0.0
        self._server_run: str | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to send and to listen. Redis need not be there yet."""
        options: dict[str, Any] = {"socket_connect_timeout": 5, "socket_timeout": _LISTEN_SECONDS + 10}
        self.redis: Any = redis.asyncio.Redis.from_url(
            self.settings.redis_address, max_connections=16, **options
        )
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._listen())]

    async def stop(self) -> None:
        """Stop both; waiting jobs get no answer any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(redis.RedisError, OSError):
            await self.redis.delete(self._reply)
        await self.redis.aclose()

    async def admit(self) -> None:
        """Raise Overloaded if the queue is full now."""
        limit = self.settings.max_queue_length
        if self._backlog + len(self._outbox) >= limit:
            if time.monotonic() - self._backlog_at > _BACKLOG_AGE:
                with contextlib.suppress(redis.RedisError, OSError):
                    await self._measure_backlog()
            if self._backlog + len(self._outbox) >= limit:
                raise Overloaded(max(1, min(30, round(self.settings.max_execution_time))))

    async def run(self, job: Job, long: bool = False) -> dict[str, Any]:
        """Queue one job and wait for its answer; never raises for what happens to the job."""
        waiting = _Waiting(job, self.keys.streams[long], asyncio.get_running_loop().create_future())
        self._waiting[job.id] = waiting
        self._outbox.append(waiting)
        self._wake.set()
        patience = None if job.life is None else job.life + job.timeout + _ANSWER_GRACE
        try:
            return await asyncio.wait_for(waiting.answer, patience)
        except TimeoutError:
            text = f"no answer in {patience:g} s: are workers running, and Redis? See /status\n"
            return outcome(reason="queue_timeout", stderr=text, retryable=True)
        finally:
            del self._waiting[job.id]

    async def run_many(self, jobs: Sequence[Job | dict[str, Any]], long: bool) -> list[dict[str, Any]]:
        """Run jobs a window at a time; an item that is an answer already is passed through. Keeps the
        order.
        """
        room = asyncio.Semaphore(_BATCH_WINDOW)

        async def one(item: Job | dict[str, Any]) -> dict[str, Any]:
            if isinstance(item, dict):
                return item
            async with room:
                return await self.run(item, long)

        return list(await asyncio.gather(*map(one, jobs)))

    def job(
        self,
        text: str,
        stdin: str,
        expected: str | None,
        timeout: float,
        echo: bool,
        seed: int | None,
        long: bool,
    ) -> Job:
        """A job of this web process."""
        life = None if long else self.settings.max_queue_work_life_time
        return Job(secrets.token_hex(12), self._reply, text, stdin, expected, timeout, echo, seed, life)

    async def status(self) -> dict[str, Any]:
        """Queue length, live workers, and what isolates their programs. Raises redis.RedisError."""
        waiting, running = 0, 0
        for stream in self.keys.streams:
            await self._join(stream)
            pending = (await self.redis.xpending(stream, Keys.GROUP))["pending"]
            waiting += max(0, await self.redis.xlen(stream) - pending)
            running += pending
        hosts = [name.decode() for name in await self.redis.smembers(self.keys.hosts)]
        beats = await self.redis.mget([self.keys.host(name) for name in hosts]) if hosts else []
        alive = {name: orjson.loads(beat) for name, beat in zip(hosts, beats, strict=True) if beat}
        if gone := set(hosts) - set(alive):
            await self.redis.srem(self.keys.hosts, *gone)
        isolation = [facts["isolation"] for facts in alive.values()]
        same = all(facts == isolation[0] for facts in isolation)
        return {
            "queue": waiting,
            "num_workers": sum(facts["workers"] for facts in alive.values()),
            "running": running,
            "isolation": (
                isolation[0] if isolation and same else {n: f["isolation"] for n, f in alive.items()}
            ),
        }

    async def _join(self, stream: str) -> None:
        try:
            await self.redis.xgroup_create(stream, Keys.GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _send(self) -> None:
        """Put into the streams what is in the outbox, everything that has gathered in one round trip."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._outbox:
                batch = self._outbox[:_SEND_AT_ONCE]
                pipe = self.redis.pipeline(transaction=False)
                for waiting in batch:
                    pipe.xadd(waiting.stream, {"job": waiting.job.to_bytes()})
                for stream in self.keys.streams:
                    pipe.xlen(stream)
                if await self._reached(
                    pipe.execute(), keep=lambda answers: self._note_backlog(sum(answers[-2:]))
                ):
                    del self._outbox[: len(batch)]

    async def _measure_backlog(self) -> None:
        lengths = [await self.redis.xlen(stream) for stream in self.keys.streams]
        self._note_backlog(sum(lengths))

    def _note_backlog(self, length: int) -> None:
        self._backlog, self._backlog_at = length, time.monotonic()

    async def _reached(self, call: Awaitable[Any], keep: Any) -> bool:
        """Await a call to Redis and hand its answer to `keep`; False, after a pause, if Redis was not
        reached.
        """
        try:
            keep(await call)
            return True
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            log.warning("Redis is away (%s); trying again", error)
            await asyncio.sleep(_RETRY)
            return False

    async def _listen(self) -> None:
        """Hand every answer that arrives to the request that waits for it."""
        while True:
            if not await self._reached(self.redis.info("server"), keep=self._notice_restart):
                continue
            while await self._reached(
                self.redis.blmpop(_LISTEN_SECONDS, 1, self._reply, direction="LEFT", count=256),
                keep=self._deliver,
            ):
                pass

    def _notice_restart(self, facts: dict[str, Any]) -> None:
        """If this is another server than before, it may have lost the jobs: put them in again (twice does
        no harm).
        """
        run = str(facts["run_id"])
        if self._server_run not in (None, run):
            unsent = {waiting.job.id for waiting in self._outbox}
            self._outbox += [waiting for name, waiting in self._waiting.items() if name not in unsent]
            self._wake.set()
        self._server_run = run

    def _deliver(self, popped: Any) -> None:
        for message in popped[1] if popped else []:
            answer = orjson.loads(message)
            waiting = self._waiting.get(answer["id"])
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_result(answer["result"])
