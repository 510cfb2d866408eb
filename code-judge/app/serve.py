"""`code-judge serve`: the whole service on one machine, started together, stopped together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
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
from app.manager import plan_for
from app.processes import spawn, stop
from app.sandbox import kernel
from app.settings import Settings

_READY_PATIENCE = 60.0
_RESTART_PAUSE = 0.5


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
        service = _Service(settings, options, folder, listener)
        try:
            with contextlib.suppress(SystemExit):
                service.start()
                workers = service.wait_until_ready()
                held = [
                    name for name, value in plan.describe().items() if value and name not in ("safe", "files")
                ]
                print(
                    f"code-judge: ready at {service.url} ({workers} workers; {', '.join(held)})", flush=True
                )
                service.write_ready_file()
                service.keep_running()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            service.stop()


class _Service:
    """The processes of one service, each with the way to start it again."""

    def __init__(self, settings: Settings, options: Options, folder: str, listener: socket.socket) -> None:
        self.options = options
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        self.url = f"http://{host}:{port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starters: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
        address = settings.redis_uri
        if address is None:
            address = embedded.uri(folder)
            self._starters["valkey"] = lambda: embedded.start(folder)
        else:
            _check_redis(address)
        environment = {"REDIS_URI": address, "RUN_WORKERS": "0"}
        if options.workers is not None:
            environment["MAX_WORKERS"] = str(options.workers)
        self._starters["workers"] = lambda: spawn(["workers"], environment)
        descriptor = listener.fileno()
        for number in range(options.web):
            self._starters[f"web{number}"] = lambda: spawn(
                ["web", str(descriptor)], environment, [descriptor]
            )

    def start(self) -> None:
        """Start everything, in order."""
        for name, starter in self._starters.items():
            self._processes[name] = starter()

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
        while True:
            time.sleep(_RESTART_PAUSE)
            for name, process in self._processes.items():
                if process.poll() is not None:
                    print(
                        f"code-judge: {name} ended with status {process.returncode}; starting it again",
                        file=sys.stderr,
                        flush=True,
                    )
                    with contextlib.suppress(embedded.NoServer):
                        self._processes[name] = self._starters[name]()

    def stop(self) -> None:
        """Stop everything: first the doors, then the workers, then the server they talk through."""
        if self.options.ready_file is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.options.ready_file)
        web = [process for name, process in self._processes.items() if name.startswith("web")]
        stop(web)
        for name in ("workers", "valkey"):
            if name in self._processes:
                stop([self._processes[name]])


def _leave(number: int, frame: FrameType | None) -> None:
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
