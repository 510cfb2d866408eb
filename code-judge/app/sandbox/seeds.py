"""What makes each program's random numbers its own.

The zygote seeds ahead of the fork, where it touches pages of its own, not of every program; and not by the libraries'
functions for it, which work through a hundred pages where their generator's state is one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_KEY = (
    624 * 4
)  # bytes of a Mersenne twister that has used up its numbers; any are as good a start as any others


class Seeds:
    """Of the generators that the imported modules share with all the code that asks them."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        if "random" in sys.modules:
            import _random

            shared: Any = sys.modules["random"]
            self._calls.append(partial(_random.Random.seed, shared._inst))
        if "numpy.random" in sys.modules:
            self._calls.append(_of_numpy(sys.modules["numpy.random"]))

    def renew(self) -> None:
        """Let the next program draw numbers that no other draws."""
        for call in self._calls:
            call()


def _of_numpy(module: Any) -> Callable[[], object]:
    """Writes the key itself, if that is where and what this numpy says it is."""

    def by_function() -> None:
        module.seed(list(os.urandom(32)))

    by_function()
    try:
        address = module.get_bit_generator().ctypes.state_address
    except Exception:
        return by_function
    kept, written = ctypes.string_at(address, _KEY), os.urandom(_KEY)
    if module.get_state()[1].tobytes() != kept:
        return by_function
    ctypes.memmove(address, written, _KEY)
    name, key, position, *_ = module.get_state()
    if (name, key.tobytes(), position) != ("MT19937", written, 624):
        return by_function
    return lambda: ctypes.memmove(address, os.urandom(_KEY), _KEY)
