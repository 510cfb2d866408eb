"""How long a call goes on, and how long it waits between two tries."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator

_LONGEST_DELAY = 5.0


class Clock:
    """The time that a call has left. It can be stopped."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; below 0 after the deadline."""
        return self._end - time.monotonic()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens inside takes no time of the call."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._end += time.monotonic() - begin


class Backoff:
    """Pauses that double up to 5 s.

    Each is cut by up to a half at random, so that calls that failed together do not come back together.
    """

    def __init__(self, first_delay_s: float, rng: random.Random) -> None:
        self._rng = rng
        self._delay = min(first_delay_s, _LONGEST_DELAY)

    def pause(self, asked: float = 0.0) -> float:
        """The next pause in seconds, after the `asked` ones that the service wants."""
        delay = self._delay
        self._delay = min(delay * 2, _LONGEST_DELAY)
        if asked:
            delay = max(delay, asked / 5)
        return asked + delay * (1 - self._rng.random() / 2)
