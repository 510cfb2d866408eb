"""A web process of `code-judge serve`: the application under uvicorn, on a socket that is there already."""

from __future__ import annotations

import socket

_GRACEFUL_SECONDS = 2  # for connections, after the drain
_KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections


def serve_web(listener: socket.socket) -> None:
    """Answer requests until a signal says stop. The settings come from the environment."""
    import uvicorn  # here: the supervisor and the workers can do without

    config = uvicorn.Config(
        "app.main:app",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    uvicorn.Server(config).run(sockets=[listener])
