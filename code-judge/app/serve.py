"""`code-judge serve`: the whole service on one machine, started together, stopped together."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import orjson
import redis

from app import embedded
from app.folder import private_folder
from app.logs import become, event
from app.manager import Manager, plan_for
from app.processes import Process, ended, fork, stop
from app.sandbox import isolation, kernel
from app.settings import CHECKED, Settings
from app.web import serve_web

log = logging.getLogger("code-judge.serve")

_READY_PATIENCE = 60.0
_LAST_ANSWERS = 3.0  # seconds beyond the drain in which a web process sends its last answers and ends
_LAST_JOBS = 1.0  # seconds that the workers have for programs nobody waits for any more
_FAST_DEATH = 1.0  # a process that lived shorter is started again only after this pause


class CannotServe(Exception):
    """Something that `serve` needs is missing or taken; the message says what and what to do."""


@dataclass(frozen=True)
class Options:
    """The command line of `code-judge serve`."""

    host: str
    port: int
    workers: int | None
    web: int
    die_with_parent: bool
    ready_file: str | None


def serve(settings: Settings, options: Options) -> None:
    """Run until SIGINT or SIGTERM (or until the parent ends). Raises CannotServe, NoServer or Unsafe at
    once.
    """
    if options.die_with_parent:
        kernel.die_with_parent(os.getppid(), signal.SIGTERM)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    plan = plan_for(settings)
    with _listen(options.host, options.port) as listener, private_folder("serve") as folder:
        service = _Service(settings, options, folder, listener, plan)
        try:
            with contextlib.suppress(SystemExit):
                service.start()
                workers = service.wait_until_ready()
                held = [
                    name for name, value in plan.describe().items() if value and name not in ("safe", "files")
                ]
                service.tell_ready(workers, held)
                service.write_ready_file()
                service.keep_running()
            with contextlib.suppress(SystemExit):  # a second signal
                service.drain()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            service.stop()


class _Service:
    """The processes of one service, each with the way to start it again."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        folder: str,
        listener: socket.socket,
        plan: isolation.Plan,
    ) -> None:
        self.settings = settings
        self.options = options
        self._plan = plan
        self._listener = listener
        self._lock: list[int] = []
        self._leaving: list[Process] = []
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http://{host}:{port}"
        self._processes: dict[str, Process] = {}
        self._started: dict[str, float] = {}
        # In this order, which is that of the time they take until they are of use.
        self._starters: dict[str, Callable[[], Process]] = {"workers": self._fork_manager}
        for number in range(options.web):
            self._starters[f"web{number}"] = self._fork_web
        address = settings.redis_uri
        if address is None:
            address = embedded.uri(folder)
            persist, data = settings.redis_persist, settings.data_dir
            if data is not None:
                self._lock = [embedded.claim(data)]  # held by this process until it ends
            self._starters["valkey"] = lambda: embedded.start(folder, persist, data)
        else:
            _check_redis(address)
        workers = settings.max_workers if options.workers is None else options.workers
        self._parts = settings.model_copy(
            update={"redis_uri": address, "run_workers": False, "max_workers": workers}
        )

    def _fork_manager(self) -> Process:
        def main() -> None:
            become("manager")
            try:
                Manager(self._parts, self._plan).run()
            except RuntimeError as error:
                print(f"code-judge: {error}", file=sys.stderr)
                raise SystemExit(2) from None

        door = self._listener.fileno()
        return fork("workers", main, self._lock if door < 0 else [*self._lock, door])

    def _fork_web(self) -> Process:
        def main() -> None:
            os.environ.update(
                {"REDIS_URI": self._parts.redis_address, "RUN_WORKERS": "0", CHECKED: "1"}
            )  # the application reads its settings itself, as under any other server
            serve_web(self._listener)

        return fork("web", main, self._lock)

    def start(self) -> None:
        """Start everything."""
        if self.options.web > 1:
            import fastapi  # noqa: F401  once for all of them
            import uvicorn  # noqa: F401
        for name in self._starters:
            self._start(name)

    def _start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        self._processes[name] = self._starters[name]()

    def wait_until_ready(self) -> int:
        """Return the number of workers as soon as /ping answers and a worker is there. Raises CannotServe."""
        deadline = time.monotonic() + _READY_PATIENCE
        while time.monotonic() < deadline:
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise CannotServe(f"{name} ended with status {process.returncode}; its message is above")
            with contextlib.suppress(OSError, ValueError), self._get("/status") as answer:
                if workers := orjson.loads(answer.read())["num_workers"]:
                    return int(workers)
            time.sleep(0.02)
        raise CannotServe(f"not ready within {_READY_PATIENCE:g} s at {self.url}")

    def _get(self, path: str):  # type: ignore[no-untyped-def]
        host = self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(host + path, timeout=2)

    def write_ready_file(self) -> None:
        """Put the base URL into the ready file, whole or not at all."""
        path = self.options.ready_file
        if path is not None:
            with open(f"{path}.part", "w") as file:
                file.write(self.url + "\n")
            os.replace(f"{path}.part", path)

    def keep_running(self) -> None:
        """Start again what ends, until a signal says stop."""
        while not _asked:
            self._keep_alive(None)

    def _keep_alive(self, seconds: float | None) -> None:
        """Wait until a process ends, `seconds` at the most, and start again what has ended."""
        dead = [name for name, process in self._processes.items() if process.poll() is not None]
        due = {name: self._started[name] + _FAST_DEATH for name in dead}
        now = time.monotonic()
        if not dead or min(due.values()) > now:
            limits = [moment - now for moment in due.values()] + ([] if seconds is None else [seconds])
            everything = [*self._processes.values(), *self._leaving]
            living = [process for process in everything if process.poll() is None]
            ended(living, min(limits, default=None))
            return
        for name in dead:
            if due[name] <= now:
                status = self._processes[name].returncode
                text = f"{name} ended with status {status}; starting it again"
                event(log, logging.WARNING, "process_restarted", text, part=name, status=status)
                with contextlib.suppress(embedded.NoServer):
                    self._start(name)

    def tell_ready(self, workers: int, held: list[str]) -> None:
        """Say where the service is, on stdout for people, as an event for JSON logs."""
        text = f"ready at {self.url} ({workers} workers; {', '.join(held)})"
        if self.settings.log_format == "json":
            event(log, logging.INFO, "ready", text, url=self.url, workers=workers, isolation=held)
        else:
            print(f"code-judge: {text}", flush=True)
        loopback = self.options.host.startswith("127.") or self.options.host in ("::1", "localhost")
        if self.settings.token is None and not loopback:
            text = (
                f"{self.url} is open to other machines and nobody is asked for a token: whoever reaches the "
                "port can run programs. Set CODE_JUDGE_TOKEN, or --host 127.0.0.1"
            )
            event(log, logging.WARNING, "no_token", text, host=self.options.host)

    def drain(self) -> None:
        """Have the web processes answer what they have accepted; all others are kept alive meanwhile. A
        signal ends it.
        """
        seconds = self.settings.drain_seconds
        text = f"stopping: what was accepted is answered first ({seconds:g} s at most); again to end at once"
        event(log, logging.INFO, "drain", text, seconds=seconds)
        self._remove_ready_file()
        self._listener.close()
        web = {name: process for name, process in self._processes.items() if name.startswith("web")}
        for process in web.values():
            process.terminate()
        for name in web:
            del self._processes[name]  # nobody starts it again
        self._leaving = list(web.values())
        deadline = time.monotonic() + seconds + _LAST_ANSWERS
        while any(process.poll() is None for process in web.values()) and time.monotonic() < deadline:
            self._keep_alive(deadline - time.monotonic())

    def stop(self) -> None:
        """Stop everything: first the doors, then the workers, then the server they talk through."""
        self._remove_ready_file()
        web = [process for name, process in self._processes.items() if name.startswith("web")]
        for process in (*web, *self._leaving):
            process.kill()  # after drain() there is none
        stop(self._leaving + web)
        if "workers" in self._processes:
            stop([self._processes["workers"]], hurry_after=_LAST_JOBS)
        if "valkey" in self._processes:
            stop([self._processes["valkey"]])
        event(log, logging.INFO, "stopped", "stopped")

    def _remove_ready_file(self) -> None:
        if self.options.ready_file is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.options.ready_file)


# Signals to stop. The exception alone is lost where Python ignores one, as in a fork's hooks.
_asked: list[int] = []


def _leave(number: int, frame: FrameType | None) -> None:
    _asked.append(number)
    raise SystemExit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        hint = "choose another with --port, 0 for any free one"
        raise CannotServe(f"port {port} of {host} can't be used: {error}; {hint}") from None
    return listener


def _check_redis(address: str) -> None:
    try:
        redis.Redis.from_url(address, socket_connect_timeout=3, socket_timeout=3).ping()
    except (redis.RedisError, ValueError, OSError) as error:
        where = address.rpartition("@")[2]
        raise CannotServe(
            f"REDIS_URI ({where}) does not answer: {error}; unset it to use a private server"
        ) from None
