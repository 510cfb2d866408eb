"""The outermost layer of the HTTP side: every request is counted, logged if ACCESS_LOG is set, and refused if
it would bring new work to a service that is stopping.
"""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.drain import Drain
from app.logs import event
from app.metrics import Tally
from app.run_code import ASK_AGAIN, PATH

log = logging.getLogger("code-judge.access")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_CLIENT_LEFT = 499  # as nginx logs it: nobody was there to be answered
_LONGEST_NAME = 100

_noted: ContextVar[dict[str, str] | None] = ContextVar("noted", default=None)


def note_sub_id(sub_id: str | None) -> None:
    """Let the access line of the current request name its submission."""
    facts = _noted.get()
    if facts is not None and sub_id:
        facts["sub_id"] = sub_id[:_LONGEST_NAME]


class Access:
    """ASGI middleware. `warn_strangers`: tell once, at the first POST from another machine, that nobody is
    asked for a token.
    """

    def __init__(
        self, app: ASGIApp, tally: Tally, drain: Drain, lines: bool = False, warn_strangers: bool = False
    ) -> None:
        self.app = app
        self.tally = tally
        self.drain = drain
        self.lines = lines
        self.warn_strangers = warn_strangers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0
        method = scope["method"]
        posts = method == "POST"
        facts: dict[str, str] = {}
        if self.lines:
            _noted.set(facts)
        if posts and self.warn_strangers and _strange(scope):
            self.warn_strangers = False
            _warn()

        async def noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if posts and self.drain.begun:
            await self._refuse(noticed, ASK_AGAIN if scope["path"] == PATH else 503)
            self._finish(scope, method, "(stopping)", status, started, facts)
            return
        self.drain.in_flight += posts
        try:
            await self.app(scope, receive, noticed)
            status = status or _CLIENT_LEFT
        except Exception:
            status = status or 500
            raise
        finally:
            self.drain.in_flight -= posts
            route = scope.get("route")
            self._finish(
                scope, method, getattr(route, "path", "(other)"), status or _CLIENT_LEFT, started, facts
            )

    def _finish(
        self, scope: Scope, method: str, route: str, status: int, started: float, facts: dict[str, str]
    ) -> None:
        seconds = time.perf_counter() - started
        self.tally.count("requests", method if method in _METHODS else "(other)", route, str(status))
        if method == "POST":
            self.tally.observe("request_seconds", seconds, route)
        if self.lines:
            client = (scope.get("client") or ("",))[0]
            milliseconds = round(seconds * 1000, 2)
            text = f"{client} {method} {route} {status} {milliseconds} ms {facts.get('sub_id', '')}".rstrip()
            event(
                log,
                logging.INFO,
                "request",
                text,
                method=method,
                route=route,
                status=status,
                ms=milliseconds,
                client=client,
                **facts,
            )

    async def _refuse(self, send: Send, status: int) -> None:
        seconds = self.drain.retry_after
        body = f'{{"detail":"the service is stopping; ask again in {seconds} s"}}'.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(seconds).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _strange(scope: Scope) -> bool:
    host = (scope.get("client") or ("",))[0].removeprefix("::ffff:")
    return bool(host) and host != "::1" and not host.startswith("127.")  # no host: a Unix socket


def _warn() -> None:
    text = (
        "programs come from other machines and nobody is asked for a token: whoever reaches the port can run "
        "some. Set CODE_JUDGE_TOKEN, or bind to 127.0.0.1"
    )
    event(logging.getLogger("code-judge.web"), logging.WARNING, "no_token", text)
