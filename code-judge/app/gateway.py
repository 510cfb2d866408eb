"""The queue as a web process sees it: what is let in, in which order, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import orjson
import redis

from app.job import Cases, Job, Keys, Steps, outcome
from app.metrics import Tally
from app.postbox import Postbox
from app.settings import Settings

_ANSWER_GRACE = 3.0  # seconds beyond waiting and running before a job is given up
_WINDOW_PER_WORKER = 4  # jobs of one batch that are in the queue at a time; the rest leaves room for others
_SMALLEST_WINDOW = 16
_WORKERS_AGE = 2.0  # seconds that a number of workers is believed
_ASIDE = 1.0  # seconds for a question to Redis that a request can do without


class Overloaded(Exception):
    """The queue is full. `seconds` is when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many jobs are waiting; ask again in {seconds} s")
        self.seconds = seconds


class Gateway:
    """One a web process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = Keys(settings.redis_key_prefix)
        self._post = Postbox(settings, self.keys)
        self._workers = 0
        self._workers_at = float("-inf")
        self._given_up = False
        self.tally = Tally()

    async def start(self) -> None:
        """Begin to send and to listen. Redis need not be there yet."""
        await self._post.start()
        self.redis: Any = self._post.redis

    async def stop(self) -> None:
        """Stop both; waiting jobs get no answer any more."""
        await self._post.stop()

    async def admit(self) -> None:
        """Raise Overloaded if the queue is full now."""
        limit = self.settings.max_queue_length
        if self._post.backlog() >= limit:
            backlog = limit
            with contextlib.suppress(redis.RedisError, OSError):
                backlog = await asyncio.wait_for(self._post.fresh_backlog(), _ASIDE)
            if backlog >= limit:
                raise Overloaded(max(1, min(30, round(self.settings.max_execution_time))))

    async def run(self, job: Job) -> dict[str, Any]:
        """Queue one job and wait for its answer; never raises for what happens to the job."""
        return await self._run(job, self.keys.jobs)

    async def _run(self, job: Job, stream: str) -> dict[str, Any]:
        if self._given_up:
            return _given_up()
        started = time.monotonic()
        waiting = self._post.post(job, stream)
        patience = None if job.life is None else job.life + job.longest + _ANSWER_GRACE
        try:
            answer = await asyncio.wait_for(waiting.answer, patience)
            self.tally.observe("wait_seconds", max(0.0, time.monotonic() - started - answer["cost"]))
            return answer
        except TimeoutError:
            self._post.withdraw(waiting)
            text = f"no answer in {patience:g} s: are workers running, and Redis? See /status\n"
            return outcome(reason="queue_timeout", stderr=text, retryable=True)
        except asyncio.CancelledError:
            self._post.withdraw(waiting)
            self.tally.count("cancelled")
            raise
        finally:
            self._post.forget(waiting)

    def give_up(self) -> None:
        """Answer all that waits, and all that comes, as retryable: this process is about to end."""
        self._given_up = True
        for waiting in self._post.waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_result(_given_up())
                self._post.withdraw(waiting)

    async def quiet(self, seconds: float) -> None:
        """Return as soon as no job waits or runs anywhere, at the latest after `seconds`."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(redis.RedisError, OSError):
            while time.monotonic() < deadline and await self._post.measure_backlog():
                await asyncio.sleep(0.05)

    async def run_many(self, jobs: Sequence[Job | dict[str, Any]], long: bool) -> list[dict[str, Any]]:
        """Run jobs a window at a time; an item that is an answer already is passed through. Keeps the
        order.
        """
        stream = self.keys.long_jobs if long else self.keys.batch_jobs
        window = await self._window()
        room = asyncio.Semaphore(window)

        async def one(item: Job | dict[str, Any]) -> dict[str, Any]:
            nonlocal window
            if isinstance(item, dict):
                return item
            async with room:
                answer = await self._run(item, stream)
            for _ in range(await self._window() - window):  # workers have joined
                window += 1
                room.release()
            return answer

        return list(await asyncio.gather(*map(one, jobs)))

    async def _window(self) -> int:
        """How many jobs of a batch keep all workers busy."""
        if time.monotonic() - self._workers_at > _WORKERS_AGE:
            self._workers_at = time.monotonic()
            with contextlib.suppress(redis.RedisError, OSError):
                hosts = await asyncio.wait_for(self._hosts(), _ASIDE)
                self._workers = sum(facts["workers"] for facts in hosts.values())
        return max(_SMALLEST_WINDOW, _WINDOW_PER_WORKER * self._workers)

    def job(
        self,
        text: str,
        stdin: str,
        expected: str | None,
        timeout: float,
        echo: bool,
        seed: int | None,
        long: bool,
        steps: Steps | None = None,
        cases: Cases | None = None,
        math: bool = False,
    ) -> Job:
        """A job of this web process."""
        life = None if long else self.settings.max_queue_work_life_time
        return Job(
            secrets.token_hex(12),
            self._post.reply,
            text,
            stdin,
            expected,
            timeout,
            echo,
            seed,
            life,
            steps,
            cases,
            math,
        )

    async def status(self) -> dict[str, Any]:
        """Queue length, live workers, and what isolates their programs. Raises redis.RedisError."""
        pipe = self.redis.pipeline(transaction=False)
        for stream in self.keys.streams:
            pipe.xgroup_create(stream, Keys.GROUP, id="0", mkstream=True)
            pipe.xpending(stream, Keys.GROUP)
            pipe.xlen(stream)
        answers = await pipe.execute(raise_on_error=False)
        waiting, running = 0, 0
        for made, pending, length in zip(answers[::3], answers[1::3], answers[2::3], strict=True):
            for answer in (made, pending, length):
                if isinstance(answer, Exception) and not str(answer).startswith("BUSYGROUP"):
                    raise answer
            waiting += max(0, length - pending["pending"])
            running += pending["pending"]
        alive = await self._hosts()
        return {
            "queue": waiting,
            "num_workers": sum(facts["workers"] for facts in alive.values()),
            "running": running,
            "isolation": _common({name: facts["isolation"] for name, facts in alive.items()}),
            "cpp": _common({name: facts.get("cpp", "no") for name, facts in alive.items()}),
        }

    async def _hosts(self) -> dict[str, Any]:
        """What each live host tells of itself."""
        names = [name.decode() for name in await self.redis.smembers(self.keys.hosts)]
        beats = await self.redis.mget([self.keys.host(name) for name in names]) if names else []
        alive = {name: orjson.loads(beat) for name, beat in zip(names, beats, strict=True) if beat}
        if gone := set(names) - set(alive):
            await self.redis.srem(self.keys.hosts, *gone)
        return alive


def _common(facts: dict[str, Any]) -> Any:
    """What all hosts say alike, else what each says."""
    values = list(facts.values())
    return values[0] if values and all(value == values[0] for value in values) else facts


def _given_up() -> dict[str, Any]:
    text = "the service stopped before the program was through; ask again\n"
    return outcome(reason="queue_timeout", stderr=text, retryable=True)
