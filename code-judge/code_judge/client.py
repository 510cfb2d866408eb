"""The client of code-judge: patient with the service, never for ever, and never the author of a verdict.

    async with JudgeClient("http://127.0.0.1:8088") as judge:
        result = await judge.run(python("print(6 * 7)", expected_output="42"))
        results = await judge.judge_many([cpp(text, stdin=case) for case in cases])

A result is what the service says of a program that ran. Everything else is an exception, `JudgeUnavailable`
above all: an outage is no wrong answer. A client may be used from any number of event loops and threads; each
loop has its own connections. Cancelling a call closes its connection, and the service stops the program. Code
without an event loop calls `code_judge.blocking.run_sync`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, overload

from code_judge import state
from code_judge.delivery import Delivery, Route
from code_judge.errors import (
    BadSubmission,
    JudgeError,
    JudgeMismatch,
    JudgeRefused,
    JudgeSettingsError,
    JudgeUnavailable,
)
from code_judge.many import Many, Progress
from code_judge.patience import Clock
from code_judge.settings import JudgeSettings
from code_judge.submission import Result, Submission, cpp, final_answer, pack, python

__all__ = [
    "BadSubmission",
    "JudgeClient",
    "JudgeError",
    "JudgeMismatch",
    "JudgeRefused",
    "JudgeSettings",
    "JudgeSettingsError",
    "JudgeUnavailable",
    "Result",
    "Submission",
    "cpp",
    "final_answer",
    "python",
    "shared_client",
]

LONG_DEADLINE_S = 3600.0
"""Seconds for each submission of a `long` batch, where no deadline is given."""

_RUN = Route("/run", "/run/batch")
_JUDGE = Route("/judge", "/judge/batch")
_LONG_RUN = Route(None, "/run/long-batch", patient=True)
_LONG_JUDGE = Route(None, "/judge/long-batch", patient=True)


class JudgeClient:
    """Runs programs on a judge; see the module.

    Args:
        settings: how to reach it; a bare URL for the defaults.
        rng: where the jitter of the pauses between retries comes from.
    """

    def __init__(self, settings: JudgeSettings | str, *, rng: random.Random | None = None) -> None:
        self.settings = JudgeSettings(settings) if isinstance(settings, str) else settings
        self._delivery = Delivery(self.settings, rng or random.Random())

    async def run(self, submission: Mapping[str, Any], *, deadline_s: float | None = None) -> Result:
        """Run one submission, and return what came of it, its output too.

        Args:
            submission: `python(...)`, `cpp(...)`, `final_answer(...)`, or any dict of the contract.
            deadline_s: in place of the settings'.

        Raises:
            JudgeUnavailable: no verdict within the deadline. JudgeRefused, one of them: the request itself is
                refused.
            BadSubmission: it can't be sent.
        """
        return await self._one(_RUN, submission, deadline_s)

    async def judge(self, submission: Mapping[str, Any], *, deadline_s: float | None = None) -> Result:
        """`run` without `stdout` and `stderr`: a verdict only."""
        return await self._one(_JUDGE, submission, deadline_s)

    @overload
    async def run_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: Literal[False] = False,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result]: ...

    @overload
    async def run_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result | JudgeError]: ...

    async def run_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool = False,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result] | list[Result | JudgeError]:
        """Run many submissions in batches; result i is that of submission i.

        Args:
            submissions: as for `run`, mixed as you like.
            return_exceptions: put a submission's JudgeError in its place; else the first one ends the call,
                and what runs is stopped.
            progress: called after each batch.
            long: the service runs these after all other work, however long they wait.
            deadline_s: for each submission, from its first request on; default: the settings', or an hour if
                `long`.

        Raises:
            As `run`, without `return_exceptions`.
        """
        routes = (_RUN, _LONG_RUN)
        return await self._many(routes, submissions, long, deadline_s, return_exceptions, progress)

    @overload
    async def judge_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: Literal[False] = False,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result]: ...

    @overload
    async def judge_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result | JudgeError]: ...

    async def judge_many(
        self,
        submissions: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool = False,
        progress: Progress | None = None,
        long: bool = False,
        deadline_s: float | None = None,
    ) -> list[Result] | list[Result | JudgeError]:
        """`run_many` without `stdout` and `stderr`: verdicts only."""
        routes = (_JUDGE, _LONG_JUDGE)
        return await self._many(routes, submissions, long, deadline_s, return_exceptions, progress)

    async def ping(self, timeout_s: float = state.ASK_S) -> None:
        """Return if an address answers as a judge. Raises JudgeUnavailable."""
        await state.ping(self._delivery.transport, self.settings.addresses, timeout_s)

    async def status(self, timeout_s: float = state.ASK_S) -> dict[str, Any]:
        """What the first address that answers says of itself: `queue`, `num_workers`, ... Raises
        JudgeUnavailable.
        """
        return await state.status(self._delivery.transport, self.settings.addresses, timeout_s)

    async def wait_until_ready(self, deadline_s: float = 60.0) -> dict[str, Any]:
        """Wait until an address has live workers; returns its status. Raises JudgeUnavailable at the
        deadline.
        """
        return await state.wait_until_ready(self._delivery.transport, self.settings.addresses, deadline_s)

    async def close(self) -> None:
        """Close the connections of this event loop. An event loop that ends closes its own."""
        await self._delivery.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _one(self, route: Route, submission: Mapping[str, Any], deadline_s: float | None) -> Result:
        item = pack(0, submission)
        outcomes = await self._delivery.deliver(
            [item], route, Clock(self.settings.deadline_s if deadline_s is None else deadline_s)
        )
        outcome = outcomes[0]
        if isinstance(outcome, JudgeError):
            raise outcome
        return outcome

    async def _many(
        self,
        routes: tuple[Route, Route],
        submissions: Sequence[Mapping[str, Any]],
        long: bool,
        deadline_s: float | None,
        return_exceptions: bool,
        progress: Progress | None,
    ) -> Any:
        if deadline_s is None:
            deadline_s = LONG_DEADLINE_S if long else self.settings.deadline_s
        call = Many(self._delivery, routes[long], submissions, deadline_s, return_exceptions, progress)
        return await call.outcomes()


_clients: dict[JudgeSettings, JudgeClient] = {}
_clients_lock = threading.Lock()


def shared_client(settings: JudgeSettings) -> JudgeClient:
    """The client of this process for `settings`, made at first use: its connections outlive the call."""
    with _clients_lock:
        return _clients.setdefault(settings, JudgeClient(settings))
