"""How many programs of this process are at each address: one count for all event loops and threads.

Who finds no room waits in its own event loop, which goes on meanwhile, and is let in by whoever leaves, in
the order of arrival. A large batch is not overtaken by small ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Waiter:
    number: int
    addresses: tuple[str, ...]
    programs: int
    bound: int
    loop: asyncio.AbstractEventLoop
    admitted: asyncio.Future[None]
    address: str | None = field(default=None)

    @property
    def queue(self) -> tuple[str, ...]:
        """Where it waits: one queue for the same addresses, in whatever order they are preferred."""
        return tuple(sorted(self.addresses))

    def fits(self, busy: int) -> bool:
        return busy + self.programs <= self.bound

    def wake(self) -> bool:
        """Let it go on; False if its event loop is gone."""
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self.loop:
                self._resolve()
                return True
        try:
            self.loop.call_soon_threadsafe(self._resolve)
            return True
        except RuntimeError:
            return False

    def _resolve(self) -> None:
        if not self.admitted.done():
            self.admitted.set_result(None)


class Slots:
    """Counts programs by address. The count is shared; each caller holds it to a bound of its own."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        # Reentrant: a coroutine that is collected as garbage leaves in whatever line its thread is at.
        self._lock = threading.RLock()
        self._busy: Counter[str] = Counter()
        # By the addresses that are waited for: few, however many wait.
        self._queues: dict[tuple[str, ...], deque[_Waiter]] = {}
        self._numbers = itertools.count()

    def busy(self, address: str) -> int:
        """Programs of this process at `address` now."""
        return self._busy[address]

    async def enter(self, addresses: Sequence[str], programs: int, bound: int) -> str:
        """Wait until one of `addresses` has room, and take it.

        Args:
            addresses: those that will do, the preferred one first.
            programs: how many are sent.
            bound: how many may be at the address then, at least `programs`.

        Returns:
            The address; `leave` must be called for it.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            for address in addresses:
                if self._first(address) is None and self._busy[address] + programs <= bound:
                    self._busy[address] += programs
                    return address
            waiter = _Waiter(
                next(self._numbers), tuple(addresses), programs, bound, loop, loop.create_future()
            )
            self._queues.setdefault(waiter.queue, deque()).append(waiter)
        try:
            await waiter.admitted
        except BaseException:
            with self._lock:
                if waiter.address is not None:
                    self.leave(waiter.address, programs)
                else:
                    self._forget(waiter)
            raise
        assert waiter.address is not None
        return waiter.address

    def leave(self, address: str, programs: int) -> None:
        """Give back what `enter` took."""
        with self._lock:
            self._busy[address] -= programs
            self._admit(address)

    def _first(self, address: str) -> _Waiter | None:
        heads = (queue[0] for queue in self._queues.values() if queue and address in queue[0].addresses)
        return min(heads, key=lambda waiter: waiter.number, default=None)

    def _admit(self, address: str) -> None:
        while True:
            first = self._first(address)
            if first is None or not first.fits(self._busy[address]):
                return
            self._remove(first)
            first.address = address
            if first.wake():
                self._busy[address] += first.programs
            else:
                first.address = None

    def _forget(self, waiter: _Waiter) -> None:
        """It waits no longer; whom it kept waiting may fit now."""
        with contextlib.suppress(KeyError, ValueError):
            self._remove(waiter)
        for address in waiter.addresses:
            self._admit(address)

    def _remove(self, waiter: _Waiter) -> None:
        queue = self._queues[waiter.queue]
        queue.remove(waiter)  # the first one, but for a call that is given up
        if not queue:
            del self._queues[waiter.queue]


SLOTS = Slots()
"""The one count of this process."""

# The parent's programs are not the child's.
os.register_at_fork(after_in_child=SLOTS._clear)
