"""Brings submissions to the service and their answers back, for as long as their deadline allows.

Asked again: connection faults, broken answers, 429, 502, 503, 504, and the submissions of a batch whose
outcome is `retryable`. Everything else is told as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from code_judge.addresses import Addresses
from code_judge.answers import is_verdict, results_of
from code_judge.errors import JudgeError, JudgeMismatch, JudgeRefused, JudgeUnavailable
from code_judge.patience import Backoff, Clock
from code_judge.settings import JudgeSettings
from code_judge.slots import SLOTS
from code_judge.submission import Item, Result
from code_judge.transport import Broken, Reply, Transport

_GATEWAY_FAULTS = frozenset({502, 503, 504})
# One item can be the reason for these; the others of its batch get their answers.
_BLAMED_ON_CONTENT = frozenset({400, 413, 422, 500})
_ADVICE = {
    401: "; set the token (CODE_JUDGE_TOKEN)",
    403: "; set the token (CODE_JUDGE_TOKEN)",
    404: "; is this address a code-judge?",
}

Outcomes = dict[int, Result | JudgeError]
"""By index of the item."""


@dataclass(frozen=True)
class Route:
    """Where a kind of request goes. `one` is the path of a single submission; None: as a batch."""

    one: str | None
    many: str
    patient: bool = False  # a request takes as long as the deadline allows

    def is_one(self, items: Sequence[Item]) -> bool:
        """Whether `items` go as a single submission."""
        return self.one is not None and len(items) == 1

    def request(self, items: Sequence[Item]) -> tuple[str, bytes]:
        """Path and body."""
        if self.one is not None and len(items) == 1:
            return self.one, items[0].body
        return self.many, b'{"submissions": [' + b", ".join(item.body for item in items) + b"]}"


class Delivery:
    """What all calls of a client share: its settings, its connections, and what it knows of the addresses."""

    def __init__(self, settings: JudgeSettings, rng: random.Random) -> None:
        self.settings = settings
        self.transport = Transport(settings.token)
        self.addresses = Addresses(settings.addresses)
        self._rng = rng

    async def deliver(self, items: Sequence[Item], route: Route, clock: Clock) -> Outcomes:
        """The outcome of each of `items`, which go in one request; raises for none of them."""
        outcomes: Outcomes = {}
        backoff = Backoff(self.settings.retry_delay_s, self._rng)
        tried: set[str] = set()
        problem = "no time was given"
        pause = 0.0
        while items:
            if clock.left() <= pause:
                error = f"no verdict from {self.settings.url} within {clock.seconds:g} s: {problem}"
                return outcomes | {item.index: JudgeUnavailable(error) for item in items}
            if pause:
                await asyncio.sleep(pause)
            pause = 0.0
            if not (address := await self._enter(len(items), clock, tried)):
                problem = "the service asked for time"
                pause = backoff.pause(self.addresses.busy_for())
                continue
            try:
                reply = await self._ask(address, items, route, clock)
                if reply.status == 200:
                    results = results_of(reply.content, items, route.is_one(items))
                    self.addresses.answered(address)
                    items, problem = _settle(items, results, outcomes)
                    tried.clear()
                    pause = backoff.pause()
                    continue
                problem = f"HTTP {reply.status}"
            except Broken as error:
                self.addresses.failed(address)
                problem = str(error)
            except JudgeMismatch as error:
                return outcomes | {item.index: JudgeMismatch(f"{address}: {error}") for item in items}
            else:
                if not self._note(address, reply):
                    return outcomes | await self._refused(address, reply, items, route, clock)
            tried.add(address)
            # Another good address is asked at once.
            if not self.addresses.others(tried):
                tried.clear()
                pause = backoff.pause(self.addresses.busy_for())
        return outcomes

    async def _enter(self, programs: int, clock: Clock, tried: set[str]) -> str | None:
        """An address with room for `programs`, taken; None if all asked for time."""
        while candidates := self.addresses.candidates(tried):
            with clock.stopped():
                address = await SLOTS.enter(candidates, programs, self.settings.max_concurrency)
            # It may have died, or asked for time, while this call waited.
            if address in self.addresses.candidates(tried):
                self.addresses.asked(address)
                return address
            SLOTS.leave(address, programs)
        return None

    async def _ask(self, address: str, items: Sequence[Item], route: Route, clock: Clock) -> Reply:
        try:
            path, body = route.request(items)
            left = max(clock.left(), 0.001)
            timeout = left if route.patient else min(left, self.settings.request_timeout_s)
            return await self.transport.send("POST", address + path, body, timeout)
        finally:
            SLOTS.leave(address, len(items))

    def _note(self, address: str, reply: Reply) -> bool:
        """Keep in mind what an answer that is no verdict says of the address; False if it says no to the
        request.
        """
        if reply.status == 429:
            self.addresses.answered(address)
        elif reply.status in _GATEWAY_FAULTS:
            self.addresses.failed(address)
        else:
            return False
        self.addresses.busy(address, reply.retry_after)
        return True

    async def _refused(
        self, address: str, reply: Reply, items: Sequence[Item], route: Route, clock: Clock
    ) -> Outcomes:
        self.addresses.answered(address)
        if reply.status in _BLAMED_ON_CONTENT and len(items) > 1:
            half = len(items) // 2
            first = await self.deliver(items[:half], route, clock)
            return first | await self.deliver(items[half:], route, clock)
        text = reply.content[:300].decode("utf-8", "replace")
        said = f"{address} refused the request: HTTP {reply.status}{_ADVICE.get(reply.status, '')}: {text}"
        return {item.index: JudgeRefused(said, reply.status) for item in items}


def _settle(items: Sequence[Item], results: list[Result], outcomes: Outcomes) -> tuple[list[Item], str]:
    """Note the verdicts; returns the items without one, and why they have none."""
    again, problem = [], ""
    for item, result in zip(items, results, strict=True):
        if is_verdict(result):
            outcomes[item.index] = result
        else:
            again.append(item)
            problem = f"the judge could not run it: {result['reason']}"
    return again, problem
