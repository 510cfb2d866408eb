"""The HTTP client of code-judge: one connection pool per process, bounded, patient with the service, never for ever.

What is not the program's fault is retried here and nowhere else: no connection, a broken answer, overload (429, 502,
503, 504), and results that the service itself calls `retryable`. At the deadline `JudgeUnavailable` is raised.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import httpx

from cleaner.errors import ConfigError, ToolInfrastructureError

_RETRIED_STATUS = frozenset({429, 502, 503, 504})
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 5.0


class JudgeUnavailable(ToolInfrastructureError):
    """The judge gave no verdict within the deadline, or refused the request."""


@dataclass(frozen=True)
class JudgeSettings:
    """How to reach a judge.

    Attributes:
        url: base address, `http://host:port`.
        deadline_s: seconds for one run, all retries included; not counted: waiting for one of the `max_concurrency`.
        request_timeout_s: seconds for one request.
        max_concurrency: requests at a time from this process.
        token: bearer token, where the service wants one.
    """

    url: str
    deadline_s: float = 120.0
    request_timeout_s: float = 60.0
    max_concurrency: int = 64
    token: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"judge_url={self.url!r} must be an address like http://host:8088.")
        for name in ("deadline_s", "request_timeout_s", "max_concurrency"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name}={value!r} must be a number above 0.")


class JudgeClient:
    """Runs programs on a judge. Belongs to the event loop in which it is first used; see `shared_client`."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(int(settings.max_concurrency))
        limits = httpx.Limits(
            max_connections=int(settings.max_concurrency),
            max_keepalive_connections=int(settings.max_concurrency),
        )
        headers = {"Authorization": f"Bearer {settings.token}"} if settings.token else {}
        # A judge is a near service: no proxy of the environment stands between.
        self._http = httpx.AsyncClient(base_url=settings.url, limits=limits, headers=headers, trust_env=False)

    async def run_python(self, code: str, options: dict[str, str] | None = None) -> dict[str, Any]:
        """Run a Python program.

        Args:
            code: its text. Lone surrogates are passed on; the judge says what it thinks of them.
            options: of the submission; default: print the last expression's value as a notebook would.

        Returns:
            The judge's result: `run_success`, `stdout`, `stderr`, `reason`, `exception`, `retryable`, `cost`, ...

        Raises:
            JudgeUnavailable: no verdict within the deadline, or the request itself was refused.
        """
        submission = {"type": "python", "solution": code, "options": options or {"echo_last": "1"}}
        async with self._slots:
            return await self._until_deadline(submission)

    async def _until_deadline(self, submission: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self._settings.deadline_s
        delay = _FIRST_DELAY
        while True:
            left = deadline - time.monotonic()
            problem, pause = "no time left", 0.0
            if left > 0:
                timeout = min(left, self._settings.request_timeout_s)
                reply, problem, pause = await self._once(submission, timeout)
                if reply is not None:
                    return reply
            wait = max(delay, pause)
            if time.monotonic() + wait >= deadline:
                raise JudgeUnavailable(
                    f"no verdict from {self._settings.url} within {self._settings.deadline_s:g} s: {problem}"
                )
            await asyncio.sleep(wait)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _once(
        self, submission: dict[str, Any], timeout: float
    ) -> tuple[dict[str, Any] | None, str, float]:
        """One request: (result or None, what was wrong, seconds that the service asks to wait)."""
        try:
            # httpx's own limits are per read; a service that trickles must not hold a slot for ever.
            async with asyncio.timeout(timeout):
                response = await self._http.post(
                    "/run", content=_encode(submission), headers=_JSON, timeout=timeout
                )
        except (httpx.TransportError, TimeoutError) as error:
            return None, f"{type(error).__name__}: {error}", 0.0
        if response.status_code in _RETRIED_STATUS:
            return None, f"HTTP {response.status_code}", _retry_after(response)
        if response.status_code >= 500:
            return None, f"HTTP {response.status_code}", 0.0
        if response.status_code != 200:
            raise JudgeUnavailable(
                f"{self._settings.url}/run refused the request: HTTP {response.status_code}: {response.text[:200]}"
            )
        try:
            reply = response.json()
        except ValueError:
            return None, "the answer is not JSON", 0.0
        if not isinstance(reply, dict) or "run_success" not in reply:
            return None, "the answer has no run_success", 0.0
        if reply.get("retryable") and not reply["run_success"]:
            return None, f"the judge could not run it: {reply.get('reason')}", 0.0
        return reply, "", 0.0

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()


_JSON = {"Content-Type": "application/json"}
# Connections belong to an event loop; a worker process has one.
_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[JudgeSettings, JudgeClient]] = WeakKeyDictionary()


def shared_client(settings: JudgeSettings) -> JudgeClient:
    """The client of this process's running event loop for `settings`, made at first use."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    if settings not in clients:
        clients[settings] = JudgeClient(settings)
    return clients[settings]


def _encode(submission: dict[str, Any]) -> bytes:
    # ASCII JSON can hold any text, lone surrogates too.
    return json.dumps(submission).encode("ascii")


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
