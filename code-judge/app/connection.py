"""How the processes of the service connect to Redis: soon aware of a server, or a network, that is gone.

A server that is slow is waited for; a machine that does not even acknowledge is not. TCP itself tells them apart.
"""

from __future__ import annotations

import socket
from typing import Any

import redis
import redis.asyncio
import redis.backoff
import redis.retry

_CONNECT = 1.5  # seconds; short, so that the first packet after an outage is not long in coming
_PATIENCE = 10.0  # seconds for the answer of a server that is reachable, beyond what a command may block
_GONE = 3  # seconds without a sign of the other machine after which a connection is given up
_CONNECTIONS = 16  # of one web process


def connect(address: str, patience: float = _PATIENCE) -> redis.Redis:
    """A client for one thread. Connects at the first command; failed commands are not repeated."""
    never = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.Redis.from_url(address, retry=never, **_options(address, patience))


def connect_async(address: str) -> redis.asyncio.Redis:
    """A client for one event loop. More commands at a time than it has connections wait for one."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        address, max_connections=_CONNECTIONS, timeout=_PATIENCE, **_options(address, _PATIENCE)
    )
    return redis.asyncio.Redis.from_pool(pool)


def _options(address: str, patience: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_connect_timeout": min(_CONNECT, patience),
        "socket_timeout": patience,
    }
    if not address.startswith("unix:"):
        options["socket_keepalive"] = True
        options["socket_keepalive_options"] = {
            socket.TCP_KEEPIDLE: 1,
            socket.TCP_KEEPINTVL: 1,
            socket.TCP_KEEPCNT: _GONE,
            socket.TCP_USER_TIMEOUT: _GONE * 1000,
        }
    return options
