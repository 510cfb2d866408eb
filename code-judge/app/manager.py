"""The manager of one machine's workers: one nursery, N workers, a heartbeat; whatever dies is started
again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import orjson
import redis

from app import __version__, cpp, worker
from app.connection import connect
from app.folder import private_folder
from app.job import Keys
from app.logs import become, event
from app.metrics import Tally, add_to
from app.outage import Outage
from app.processes import set_title
from app.sandbox import cgroup, isolation, nursery
from app.sandbox.protocol import NurseryConfig
from app.settings import Settings, without_password

log = logging.getLogger("code-judge.manager")

_HEARTBEAT = 1.0
_HEARTBEAT_LIFE = 4  # seconds after which a silent host's workers count no more
_STOP_LOOK = 0.1  # seconds between two looks for a second signal
_FAST_DEATH = 1.0  # a worker that lived shorter is restarted only after this pause


class Unsafe(Exception):
    """Nothing here isolates the programs, and nobody said that this is all right."""


def plan_for(settings: Settings) -> isolation.Plan:
    """Find out what isolates programs on this machine. Raises Unsafe if that is too little and not allowed."""
    plan = isolation.probe(settings.without_primitives)
    if not plan.safe and not settings.code_judge_allow_unsafe:
        lacking = " and ".join(
            name
            for name, held in (("files", plan.files_isolated), ("network", plan.network_isolated))
            if not held
        )
        raise Unsafe(
            f"this kernel and user give no isolation of {lacking}: model-written programs could reach everything "
            "that this user can. Run `code-judge doctor` to see what is missing, use a kernel with Landlock and "
            "seccomp or user namespaces, or set CODE_JUDGE_ALLOW_UNSAFE=1 if that is all right"
        )
    return plan


class Manager:
    """Starts the workers of this machine and keeps them alive."""

    def __init__(self, settings: Settings, plan: isolation.Plan) -> None:
        self.settings = settings
        self.plan = plan
        self.host = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.keys = Keys(settings.redis_key_prefix)
        self.redis: Any = connect(settings.redis_address, patience=2.0)
        self.toolchain = cpp.find(settings)
        self._cpp = (self.toolchain and self.toolchain.version()) or "no"
        self._slots: dict[int, int] = {}  # pidfd: slot
        self._pids: dict[int, int] = {}  # slot: pid
        self._started: dict[int, float] = {}  # slot: when
        self._nursery: subprocess.Popen[bytes] | None = None
        self._alive: socket.socket | None = None
        self._stopping = False
        self._hurry = False
        self._outage = Outage(log, without_password(settings.redis_address))
        self._tally = Tally()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        groups = cgroup.claim(cgroup.parents()) if self.plan.cgroup else ()
        with private_folder("workers") as folder, contextlib.suppress(SystemExit):
            os.mkdir(f"{folder}/root")
            config = NurseryConfig(
                plan=self.plan,
                folder=folder,
                preload=self.settings.preload_modules,
                memory_mib=self.settings.max_memory,
                disk_mib=self.settings.max_disk,
                processes=self.settings.max_processes,
                toolchain=() if self.toolchain is None else self.toolchain.folders,
                groups=groups,
            )
            try:
                self._supervise(config)
            finally:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, self._hurry_up)
                self._stop()
                cgroup.remove(groups)

    def _supervise(self, config: NurseryConfig) -> None:
        beat_at = 0.0
        while not _asked:
            if self._nursery is None or self._nursery.poll() is not None:
                self._start_nursery(config)
            due = beat_at
            for slot in range(self.settings.max_workers):
                if slot not in self._pids:
                    pause_until = self._started.get(slot, float("-inf")) + _FAST_DEATH
                    if time.monotonic() >= pause_until:
                        self._start_worker(config, slot)
                    else:
                        due = min(due, pause_until)
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + _HEARTBEAT
                self._end_the_stopped()
                self._beat()
            self._wait(max(0.0, due - time.monotonic()))

    def _start_nursery(self, config: NurseryConfig) -> None:
        if self._alive is not None:
            event(log, logging.ERROR, "nursery_restarted", "the nursery ended; starting another")
            self._tally.count("nursery_restarts")
            self._alive.close()
        self._nursery, self._alive = nursery.start(config)

    def _start_worker(self, config: NurseryConfig, slot: int) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            if self._alive is not None:
                self._alive.close()  # only the manager keeps the nursery alive
            for pidfd in self._slots:
                os.close(pidfd)
            become(f"worker-{slot}")
            set_title(f"code-judge worker {slot}")
            worker.run(self.settings, config, f"{self.host}-{slot}", slot, parent)
        self._pids[slot] = pid
        self._slots[os.pidfd_open(pid)] = slot
        self._started[slot] = time.monotonic()

    def _wait(self, seconds: float) -> None:
        """Return after `seconds`, or as soon as a worker, which is forgotten then, or the nursery has ended."""
        poller = select.poll()
        for pidfd in self._slots:
            poller.register(pidfd, select.POLLIN)
        if self._alive is not None and not self._stopping:
            poller.register(self._alive, select.POLLIN)  # hung up on
        for pidfd, _ in poller.poll(seconds * 1000):
            if pidfd not in self._slots:
                continue
            slot = self._slots.pop(pidfd)
            os.close(pidfd)
            _, status = os.waitpid(self._pids.pop(slot), 0)
            if not self._stopping:
                text = f"worker {slot} ended with wait status {status}; starting another"
                event(log, logging.WARNING, "worker_restarted", text, slot=slot, wait_status=status)
                self._tally.count("worker_restarts")

    def _end_the_stopped(self) -> None:
        """A worker that somebody stopped (SIGSTOP) holds its job for ever: end it, its successor takes the job up."""
        for slot, pid in self._pids.items():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "T":
                    event(
                        log,
                        logging.WARNING,
                        "worker_stopped",
                        f"worker {slot} was stopped; ending it",
                        slot=slot,
                    )
                    os.kill(pid, signal.SIGKILL)

    def _beat(self) -> None:
        """Tell the web processes who is here. Failing is no harm: the workers themselves wait for Redis."""
        facts = {
            "workers": len(self._pids),
            "version": __version__,
            "isolation": self.plan.describe(),
            "cpp": self._cpp,
        }
        counts = self._tally.take()
        try:
            pipe = self.redis.pipeline(transaction=False)
            pipe.set(self.keys.host(self.host), orjson.dumps(facts), ex=_HEARTBEAT_LIFE)
            pipe.sadd(self.keys.hosts, self.host)
            add_to(pipe, self.keys, counts)
            pipe.execute()
            self._outage.back()
        except redis.RedisError as error:
            self._tally.give_back(counts)
            self._outage.away(error)

    def _hurry_up(self, number: int, frame: FrameType | None) -> None:
        self._hurry = True

    def _stop(self) -> None:
        """Let the workers end their present jobs, until a second signal; then end everything."""
        self._stopping = True
        seconds = self.settings.drain_seconds
        text = f"stopping: programs that run may end ({seconds:g} s at most); again to end at once"
        event(log, logging.INFO, "drain", text, seconds=seconds, workers=len(self._pids))
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self._pids and time.monotonic() < deadline and not self._hurry:
            self._wait(min(_STOP_LOOK, deadline - time.monotonic()))
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while self._pids:
            self._wait(1.0)
        if self._alive is not None:
            self._alive.close()
        if self._nursery is not None:
            self._nursery.wait()
        with contextlib.suppress(redis.RedisError):
            self.redis.delete(self.keys.host(self.host))
            self.redis.srem(self.keys.hosts, self.host)


# Signals to stop. The exception alone is lost where Python ignores one, as in a fork's hooks.
_asked: list[int] = []


def _leave(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise SystemExit(0)
