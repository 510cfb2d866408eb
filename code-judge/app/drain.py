"""Stopping without losing what was accepted.

At the first SIGTERM or SIGINT a web process goes on as before, except that it accepts nothing new (503 with
Retry-After). When its last request is answered, or its time is over, the signal does what it would have done
at once: it ends the server. What has no answer when the time is over is answered as retryable. The same
signal again, or SIGINT after SIGTERM, ends the server at once. (SIGTERM after SIGINT does not: Ctrl-C at the
terminal reaches a web process directly, and uvicorn's parent process sends it SIGTERM as well.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from app.logs import event

log = logging.getLogger("code-judge.web")

_LOOK = 0.02  # seconds between two looks whether the last request is answered
_LAST_WORDS = 1.0  # seconds for sending the answers that the end of the time has made


class Drain:
    """Whether this process still accepts requests, and how many it works on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.in_flight = 0
        self._until: float | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """True from the first signal on."""
        return self._until is not None

    @property
    def remaining(self) -> float:
        """Seconds until this process is gone for sure; all of them before the first signal."""
        return self.seconds if self._until is None else max(0.0, self._until - time.monotonic())

    @property
    def retry_after(self) -> int:
        """Whole seconds after which another service may be in this one's place."""
        return max(1, math.ceil(self.remaining))

    @contextlib.contextmanager
    def on_signals(self, give_up: Callable[[], None]) -> Iterator[None]:
        """Drain at SIGTERM and SIGINT. `give_up` is called when the time is over: it must answer what is
        waiting. In another thread than the main one, where there are no signals, nothing happens.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.getsignal(number) for number in numbers}
        seen: list[int] = []

        def end(number: int) -> None:
            for other in numbers:
                signal.signal(other, before[other])
            signal.raise_signal(number)

        def handle(number: int, frame: FrameType | None) -> None:
            again = number in seen or (number == signal.SIGINT and bool(seen))
            seen.append(number)
            if again:
                loop.call_soon_threadsafe(give_up)
                loop.call_soon_threadsafe(self._end_at_once, end)
            elif len(seen) == 1:
                loop.call_soon_threadsafe(self._begin, number, give_up, end)

        for number in numbers:
            signal.signal(number, handle)
        try:
            yield
        finally:
            for number in numbers:
                if signal.getsignal(number) is handle:
                    signal.signal(number, before[number])

    def _begin(self, number: int, give_up: Callable[[], None], end: Callable[[int], None]) -> None:
        self._until = time.monotonic() + self.seconds
        self._task = asyncio.get_running_loop().create_task(self._drain(number, give_up, end))

    async def _drain(self, number: int, give_up: Callable[[], None], end: Callable[[int], None]) -> None:
        text = f"stopping; requests still being answered: {self.in_flight} ({self.seconds:g} s at most)"
        event(log, logging.INFO, "drain", text, in_flight=self.in_flight, seconds=self.seconds)
        await self._idle(self.remaining)
        if late := self.in_flight:
            text = f"requests without an answer after {self.seconds:g} s: {late}; told to ask again"
            event(log, logging.WARNING, "drain_gave_up", text, in_flight=late)
            give_up()
            await self._idle(_LAST_WORDS)
        end(number)

    async def _idle(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.in_flight and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK)

    def _end_at_once(self, end: Callable[[int], None]) -> None:
        if self._task is not None:
            self._task.cancel()
        self._until = time.monotonic()
        end(signal.SIGINT)
        asyncio.get_running_loop().call_later(_LAST_WORDS, self._end_by_force)

    def _end_by_force(self) -> None:
        if self.in_flight:  # a client that never sends the rest, or reads none: uvicorn obeys a second SIGINT
            signal.raise_signal(signal.SIGINT)
