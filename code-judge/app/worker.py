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

from app import cases, cpp, math_answer, steps, verdict
from app.attendance import HELD_FOR_DEAD, Attendance
from app.connection import connect
from app.handover import Handover
from app.job import Job, Keys, outcome
from app.logs import event
from app.sandbox import kernel, layers
from app.sandbox.cell import Cell, ClientLeft, SandboxLost
from app.sandbox.protocol import NurseryConfig, Order
from app.settings import Settings

log = logging.getLogger("code-judge.worker")

_BLOCK_MS = 500
_RETRY = 0.2  # seconds between two attempts to reach Redis
_RETRY_ANSWER = 0.1
_CLAIM_EVERY = 0.5  # seconds between two looks for the jobs of dead workers
_LONG_WAIT = 2.0  # seconds in the queue after which it is asked whether the job's web process still lives
_MAX_DELIVERIES = 3
_NATIVE = -1  # the kind of cell for compilers and compiled programs; others are numbers of layers
_CELL_PATIENCE = 10.0  # seconds to wait for a nursery that is being restarted

# Stream, entry id, fields, whether it was delivered before.
Entry = tuple[str, bytes, dict[bytes, bytes], bool]


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
        self.redis: Any = connect(settings.redis_address)
        self._hand_over = Handover(self.redis, self.keys, name)
        self._stepper = steps.Stepper(settings, cpp.find(settings))
        self._cells: dict[int, Cell] = {}
        self._ready: deque[Entry] = deque()
        self._asked = False  # whether the last handover said that nothing is waiting
        self._refused = ""
        self._idle = False
        self._stopping = False
        self._clock_ahead = 0.0
        self._claim_at = 0.0
        self._claimed_up_to = dict.fromkeys(self.keys.streams, "0-0")
        self._attendance = Attendance(settings, name)

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
                if not self._ready and time.monotonic() >= self._claim_at:
                    self._claim()
                if not self._ready:
                    self._fetch()
                if self._ready:
                    self._handle(self._ready.popleft())
            except redis.RedisError as error:
                self._tell_refused(error)
                time.sleep(_RETRY)
                fresh = True

    def _join(self) -> None:
        """Make sure that the groups exist, and take up what an earlier worker of this name was working on."""
        for stream in self.keys.streams:
            join(self.redis, stream)
        seconds, micros = self.redis.time()
        self._clock_ahead = seconds + micros / 1e6 - time.time()
        self._ready.clear()
        self._asked = False
        answer = self.redis.xreadgroup(Keys.GROUP, self.name, dict.fromkeys(self.keys.streams, "0"))
        self._ready.extend(_entries(answer, again=True))

    def _claim(self) -> None:
        """Take over a job whose worker shows no more sign of life."""
        self._claim_at = time.monotonic() + _CLAIM_EVERY
        for stream, start in self._claimed_up_to.items():
            claimed = self.redis.xautoclaim(
                stream, Keys.GROUP, self.name, int(HELD_FOR_DEAD * 1000), start, count=1
            )
            self._claimed_up_to[stream] = claimed[0]
            self._ready.extend(_entries([(stream, claimed[1])], again=True))

    def _fetch(self) -> None:
        """Wait a while for jobs, the first in rank. Waiting brings one of each stream if they are there already, hence
        the question before it.
        """
        if not self._asked:
            self._asked = True
            if (taken := self._hand_over.take()) is not None:
                self._ready.append((*taken, False))
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
        try:
            job = Job.from_bytes(fields[b"job"])
        except (ValueError, TypeError, KeyError) as error:
            self._refuse(stream, entry_id, fields, error)
            return
        self._attendance.begin(stream, entry_id, job.reply)
        try:
            answer = self._answer(stream, entry_id, job, again)
        except ClientLeft:
            self._drop(stream, entry_id)
        else:
            self._send(job.reply, job.id, stream, entry_id, answer)
        finally:
            self._attendance.end()

    def _answer(self, stream: str, entry_id: bytes, job: Job, again: bool) -> dict[str, Any]:
        waited = time.time() + self._clock_ahead - int(entry_id.partition(b"-")[0]) / 1000
        if job.life is not None and waited > job.life:
            text = f"no worker was free for {job.life:g} s; ask again, or start more workers (MAX_WORKERS)\n"
            return outcome(reason="queue_timeout", stderr=text, retryable=True)
        if waited > _LONG_WAIT and not self.redis.exists(Keys.alive(job.reply)):
            raise ClientLeft  # with the whole web process
        if again and self._deliveries(stream, entry_id) > _MAX_DELIVERIES:
            text = f"{_MAX_DELIVERIES} workers were lost while they ran this program; ask again\n"
            return outcome(reason="internal_error", stderr=text, retryable=True)
        return self._execute(job)

    def _deliveries(self, stream: str, entry_id: bytes) -> int:
        pending = self.redis.xpending_range(stream, Keys.GROUP, entry_id, entry_id, 1)
        return int(pending[0]["times_delivered"]) if pending else 0

    def _execute(self, job: Job) -> dict[str, Any]:
        layer = self._layer(job)
        patience = time.monotonic() + _CELL_PATIENCE
        attempts = 0
        while True:
            try:
                cell = self._cells.get(layer)
                if cell is None:
                    cell = self._cells[layer] = self._open(layer)
                attempts += 1
                return self._run_in(cell, job)
            except ClientLeft:
                self._cells.pop(layer, None)
                raise
            except SandboxLost as error:
                self._cells.pop(layer, None)
                self._tell_lost(error)
                if attempts >= _MAX_DELIVERIES or time.monotonic() > patience:
                    return outcome(
                        reason="internal_error", stderr=f"the sandbox failed: {error}\n", retryable=True
                    )
                time.sleep(0.05)

    def _layer(self, job: Job) -> int:
        """The kind of cell that a job needs."""
        if job.math:
            return layers.math(self.config.preload)
        if job.steps is not None and job.steps.language == "cpp":
            return _NATIVE
        if job.cases is not None and job.cases.expected is None:
            return self._layer_of("\n".join((job.text, *job.cases.tests)), job)
        return self._layer_of(job.text, job)

    def _layer_of(self, text: str, job: Job) -> int:
        return layers.choose(text, self.config.preload, seeded=job.seed is not None)

    def _run_in(self, cell: Cell, job: Job) -> dict[str, Any]:
        """The answer of a job. Raises SandboxLost and ClientLeft."""
        if job.math:
            return math_answer.run(job, cell, self.settings)
        if job.steps is not None:
            return self._stepper.run(job, cell)
        if job.cases is not None:
            return cases.run(job, cell, self.settings)
        order = Order(job.timeout, job.echo_last, job.seed)
        stdout, stderr = verdict.captures(job, self.settings.max_stdout_error_length)
        seen = cell.run(job.text.encode(), job.stdin.encode(), order, stdout, stderr)
        return verdict.of_program(job, seen, stdout, stderr, self.settings.max_memory)

    def _open(self, layer: int) -> Cell:
        if layer == layers.math(self.config.preload):
            self._wait_for(self.config.socket_path(layer))
        if layer != _NATIVE:
            return Cell(self.config.socket_path(layer), self.slot, self._attendance.left)
        memory = cpp.native_memory(self.settings)
        path, left = self.config.socket_path(0), self._attendance.left
        return Cell(path, self.slot, left, memory_mib=memory, spare_mib=steps.SPARE_MIB)

    def _wait_for(self, path: str) -> None:
        """Return when a nursery listens there, or is late: it is started beside the others, and not waited for."""
        deadline = time.monotonic() + _CELL_PATIENCE
        while not os.path.exists(path) and time.monotonic() < deadline and not self._attendance.left():
            time.sleep(0.02)

    def _tell_lost(self, error: SandboxLost) -> None:
        event(log, logging.WARNING, "sandbox_lost", f"worker {self.name}: {error}", worker=self.name)
        with contextlib.suppress(redis.RedisError):
            self.redis.hincrby(self.keys.metrics, "sandboxes_lost", 1)

    def _tell_refused(self, error: redis.RedisError) -> None:
        """A Redis that answers, but refuses: it is full, or read-only. That it is away, the manager tells."""
        text = str(error)
        if (
            isinstance(error, redis.ResponseError)
            and text != self._refused
            and not text.startswith("NOGROUP")
        ):
            self._refused = text
            event(log, logging.ERROR, "redis_refuses", f"worker {self.name}: Redis refuses: {text}")

    def _refuse(self, stream: str, entry_id: bytes, fields: dict[bytes, bytes], error: Exception) -> None:
        """Answer a job that can't be read, as far as it can be read: its web process is of another version."""
        event(log, logging.ERROR, "job_unreadable", f"worker {self.name} can't read a job: {error!r}")
        try:
            facts = orjson.loads(fields[b"job"])
            name, reply = str(facts["id"]), str(facts["reply"])
        except (ValueError, TypeError, KeyError):
            self._drop(stream, entry_id)
            return
        text = "the worker can't read this job: web processes and workers are of different versions\n"
        self._send(
            reply, name, stream, entry_id, outcome(reason="internal_error", stderr=text, retryable=True)
        )

    def _drop(self, stream: str, entry_id: bytes) -> None:
        """Forget a job that nobody waits for; if Redis is away, the next worker that claims it finds it deleted."""
        with contextlib.suppress(redis.RedisError):
            pipe = self.redis.pipeline(transaction=True)
            pipe.xack(stream, Keys.GROUP, entry_id)
            pipe.xdel(stream, entry_id)
            pipe.execute()

    def _send(self, reply: str, name: str, stream: str, entry_id: bytes, answer: dict[str, Any]) -> None:
        """Store the answer, acknowledge, and ask for the next job, in one transaction; again until it
        worked.
        """
        message = orjson.dumps({"id": name, "result": answer})
        while True:
            # Under load, too, it is time to look for dead workers' jobs now and then.
            ask_next = not self._ready and not self._stopping and time.monotonic() < self._claim_at
            try:
                taken = self._hand_over(reply, message, stream, entry_id, ask_next)
            except redis.RedisError as error:
                self._tell_refused(error)
                time.sleep(_RETRY_ANSWER)
                continue
            self._asked = ask_next
            if taken is not None:
                self._asked = False
                self._ready.append((*taken, False))
            return


def join(server: Any, stream: str) -> None:
    """Create the stream and its group unless they exist."""
    try:
        server.xgroup_create(stream, Keys.GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


def _entries(answer: Any, again: bool = False) -> list[Entry]:
    """Flatten an XREADGROUP answer, a list or (protocol 3) a mapping of streams."""
    found: list[Entry] = []
    for stream, entries in answer.items() if isinstance(answer, dict) else answer or []:
        name = stream.decode() if isinstance(stream, bytes) else stream
        if isinstance(answer, dict) and entries and isinstance(entries[0], list):
            entries = [entry for part in entries for entry in part]
        found += [(name, entry_id, fields, again) for entry_id, fields in entries if fields]
    return found
