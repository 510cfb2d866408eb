"""A worker: takes one job at a time from Redis, has its zygote run it, stores the answer, only then
acknowledges.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections import deque
from types import FrameType
from typing import Any, NoReturn

import orjson
import redis

from app import verdict
from app.job import RESULT_LIFE, Job, Keys, outcome
from app.logs import event
from app.sandbox import kernel, layers
from app.sandbox.cell import Cell, SandboxLost
from app.sandbox.protocol import NurseryConfig, Order
from app.settings import Settings

log = logging.getLogger("code-judge.worker")

_BLOCK_MS = 1000
_RETRY = 0.2  # seconds between two attempts to reach Redis
_CLAIM_EVERY = 2.0  # seconds between two looks for the jobs of dead workers
_CLAIM_GRACE = 3.0  # seconds beyond the time limit after which a job's worker is held for dead
_MAX_DELIVERIES = 3
_CELL_PATIENCE = 10.0  # seconds to wait for a nursery that is being restarted

Entry = tuple[
    str, bytes, dict[bytes, bytes], bool
]  # stream, entry id, fields, whether it was delivered before


def run(settings: Settings, config: NurseryConfig, name: str, slot: int, parent: int) -> NoReturn:
    """The main function of a worker process. `name` is its consumer name: the next worker of the same slot
    takes up
    what this one leaves."""
    kernel.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(settings, config, name, slot)
    signal.signal(signal.SIGTERM, worker.stop)
    status = 0
    try:
        worker.loop()
    except SystemExit:
        pass
    except BaseException:
        log.exception("worker %s failed", name)
        status = 1
    finally:
        worker.close()
        os._exit(status)


class Worker:
    """One consumer of the job streams."""

    def __init__(self, settings: Settings, config: NurseryConfig, name: str, slot: int) -> None:
        self.settings = settings
        self.config = config
        self.name = name
        self.slot = slot
        self.keys = Keys(settings.redis_key_prefix)
        self.redis: Any = redis.Redis.from_url(
            settings.redis_address, socket_timeout=10, socket_connect_timeout=5
        )
        self._cells: dict[int, Cell] = {}
        self._ready: deque[Entry] = deque()
        self._idle = False
        self._stopping = False
        self._clock_ahead = 0.0
        self._claim_at = 0.0

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: leave at once when idle, else after the current job."""
        self._stopping = True
        if self._idle:
            raise SystemExit

    def close(self) -> None:
        """Kill the zygotes."""
        for cell in self._cells.values():
            cell.close()

    def loop(self) -> None:
        """Work until told to stop. A Redis that is away is waited for."""
        fresh = True
        while not self._stopping or self._ready:
            try:
                if fresh:
                    self._join()
                    fresh = False
                if not self._ready:
                    self._fetch()
                if self._ready:
                    self._handle(self._ready.popleft())
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
                if isinstance(error, redis.ResponseError) and not _group_missing(error):
                    raise
                time.sleep(_RETRY)
                fresh = True

    def _join(self) -> None:
        """Make sure that the groups exist, and take up what an earlier worker of this name was working on."""
        for stream in self.keys.streams:
            join(self.redis, stream)
        seconds, micros = self.redis.time()
        self._clock_ahead = seconds + micros / 1e6 - time.time()
        self._ready.clear()
        answer = self.redis.xreadgroup(Keys.GROUP, self.name, dict.fromkeys(self.keys.streams, "0"))
        self._ready.extend(_entries(answer, again=True))

    def _fetch(self) -> None:
        """Wait up to a second for jobs: of dead workers now and then, else the first in rank."""
        if time.monotonic() >= self._claim_at:
            self._claim_at = time.monotonic() + _CLAIM_EVERY
            idle_ms = int((self.settings.max_execution_time + _CLAIM_GRACE) * 1000)
            for stream in self.keys.streams:
                claimed = self.redis.xautoclaim(stream, Keys.GROUP, self.name, idle_ms, count=1)
                self._ready.extend(_entries([(stream, claimed[1])], again=True))
            if self._ready:
                return
        wanted = dict.fromkeys(self.keys.streams, ">")
        self._idle = True  # a stop from here on is obeyed at once; one just before, after a second
        try:
            answer = self.redis.xreadgroup(Keys.GROUP, self.name, wanted, count=1, block=_BLOCK_MS)
        finally:
            self._idle = False
        self._ready.extend(_entries(answer))

    def _handle(self, entry: Entry) -> None:
        stream, entry_id, fields, again = entry
        job = Job.from_bytes(fields[b"job"])
        self._finish(stream, entry_id, job, self._answer(stream, entry_id, job, again))

    def _answer(self, stream: str, entry_id: bytes, job: Job, again: bool) -> dict[str, Any]:
        waited = time.time() + self._clock_ahead - int(entry_id.partition(b"-")[0]) / 1000
        if job.life is not None and waited > job.life:
            text = f"no worker was free for {job.life:g} s; ask again, or start more workers (MAX_WORKERS)\n"
            return outcome(reason="queue_timeout", stderr=text, retryable=True)
        if again and self._deliveries(stream, entry_id) > _MAX_DELIVERIES:
            text = f"{_MAX_DELIVERIES} workers were lost while they ran this program; ask again\n"
            return outcome(reason="internal_error", stderr=text, retryable=True)
        return self._execute(job)

    def _deliveries(self, stream: str, entry_id: bytes) -> int:
        pending = self.redis.xpending_range(stream, Keys.GROUP, entry_id, entry_id, 1)
        return int(pending[0]["times_delivered"]) if pending else 0

    def _execute(self, job: Job) -> dict[str, Any]:
        layer = layers.choose(job.text, self.config.preload)
        order = Order(job.timeout, job.echo_last, job.seed)
        patience = time.monotonic() + _CELL_PATIENCE
        attempts = 0
        while True:
            try:
                cell = self._cells.get(layer)
                if cell is None:
                    cell = self._cells[layer] = Cell(self.config.socket_path(layer), self.slot)
                attempts += 1
                stdout, stderr = verdict.captures(job, self.settings.max_stdout_error_length)
                seen = cell.run(job.text.encode(), job.stdin.encode(), order, stdout, stderr)
                return verdict.of_program(job, seen, stdout, stderr, self.settings.max_memory)
            except SandboxLost as error:
                self._cells.pop(layer, None)
                self._tell_lost(error)
                if attempts >= _MAX_DELIVERIES or time.monotonic() > patience:
                    return outcome(
                        reason="internal_error", stderr=f"the sandbox failed: {error}\n", retryable=True
                    )
                time.sleep(0.05)

    def _tell_lost(self, error: SandboxLost) -> None:
        event(log, logging.WARNING, "sandbox_lost", f"worker {self.name}: {error}", worker=self.name)
        with contextlib.suppress(redis.RedisError):
            self.redis.hincrby(self.keys.metrics, "sandboxes_lost", 1)

    def _finish(self, stream: str, entry_id: bytes, job: Job, answer: dict[str, Any]) -> None:
        """Store the answer, acknowledge, and ask for the next job, in one transaction; again until it
        worked.
        """
        message = orjson.dumps({"id": job.id, "result": answer})
        while True:
            pipe = self.redis.pipeline(transaction=True)
            pipe.rpush(job.reply, message)
            pipe.expire(job.reply, RESULT_LIFE)
            pipe.xack(stream, Keys.GROUP, entry_id)
            pipe.xdel(stream, entry_id)
            ask_next = not self._ready and not self._stopping
            if ask_next:
                pipe.xreadgroup(Keys.GROUP, self.name, {self.keys.jobs: ">"}, count=1)
            try:
                answers = pipe.execute(raise_on_error=False)
            except (redis.ConnectionError, redis.TimeoutError):
                time.sleep(0.1)
                continue
            for result in answers:
                if isinstance(result, Exception) and not _group_missing(result):
                    raise result
            if ask_next and not isinstance(answers[-1], Exception):
                self._ready.extend(_entries(answers[-1]))
            return


def join(server: Any, stream: str) -> None:
    """Create the stream and its group unless they exist."""
    try:
        server.xgroup_create(stream, Keys.GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _group_missing(error: Exception) -> bool:
    return str(error).startswith("NOGROUP")


def _entries(answer: Any, again: bool = False) -> list[Entry]:
    """Flatten an XREADGROUP answer, a list or (protocol 3) a mapping of streams."""
    found: list[Entry] = []
    for stream, entries in answer.items() if isinstance(answer, dict) else answer or []:
        name = stream.decode() if isinstance(stream, bytes) else stream
        if isinstance(answer, dict) and entries and isinstance(entries[0], list):
            entries = [entry for part in entries for entry in part]
        found += [(name, entry_id, fields, again) for entry_id, fields in entries if fields]
    return found
