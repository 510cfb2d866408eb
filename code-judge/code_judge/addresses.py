"""Which of a service's addresses to ask next: in turn, leaving alone for a while those that failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

_FIRST_REST = 0.5
_LONGEST_REST = 30.0


@dataclass
class _State:
    faults: int = 0
    counts_again: float = 0.0  # many requests fail together when a service dies: that is one fault
    rests_until: float = 0.0  # it failed: asked only if there is no other
    busy_until: float = 0.0  # it asked for that time itself: not asked at all


class Addresses:
    """The health of a service's addresses, as all calls of a client see it. May be used from any thread."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._states = {url: _State() for url in urls}
        self._clock = clock
        self._turn = 0
        self._lock = threading.Lock()

    def candidates(self, tried: Collection[str] = ()) -> list[str]:
        """Those to ask now, the preferred one first: the good ones in turn, else those that rest; empty if
        all asked for time.

        Args:
            tried: left out if others are good.
        """
        with self._lock:
            urls = [*self._states]
            start = self._turn % len(urls)
            now = self._clock()
            open_ = [url for url in urls[start:] + urls[:start] if self._states[url].busy_until <= now]
            good = [url for url in open_ if self._states[url].rests_until <= now]
            return [url for url in good if url not in tried] or good or open_

    def others(self, tried: Collection[str]) -> bool:
        """Whether a good address has not been tried."""
        now = self._clock()
        states = [state for url, state in self._states.items() if url not in tried]
        return any(max(state.rests_until, state.busy_until) <= now for state in states)

    def busy_for(self) -> float:
        """Seconds until an address may be asked."""
        return max(0.0, min(state.busy_until for state in self._states.values()) - self._clock())

    def asked(self, url: str) -> None:
        """A request goes out. After a rest this one is the trial: others go on leaving the address alone."""
        with self._lock:
            self._turn += 1
            state = self._states[url]
            if state.faults:
                state.rests_until = self._clock() + self._rest(state)

    def answered(self, url: str) -> None:
        """An answer came: the address is good."""
        state = self._states[url]
        if state.faults:
            with self._lock:
                state.faults, state.counts_again, state.rests_until = 0, 0.0, 0.0

    def failed(self, url: str) -> None:
        """No answer came, or that of a gateway before a dead service."""
        with self._lock:
            state = self._states[url]
            now = self._clock()
            if state.counts_again <= now:
                state.faults += 1
                state.counts_again = now + self._rest(state)
            state.rests_until = now + self._rest(state)

    def busy(self, url: str, seconds: float) -> None:
        """The address asks to be left alone for `seconds`."""
        state = self._states[url]
        state.busy_until = max(state.busy_until, self._clock() + seconds)

    def _rest(self, state: _State) -> float:
        return min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(state.faults - 1, 16))
