"""Calls of a client from code that has no event loop.

verl runs a reward function that is not `async` in a thread of a pool, and its offline evaluation in plain
code. With `asyncio.run` each call would open, and close, connections of its own. Here all threads share one
event loop in the background, and with it the connections.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_PATIENCE_AT_EXIT_S = 2.0


class _Background:
    """An event loop in a thread that ends with the process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="code-judge-client", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._end.wait()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_PATIENCE_AT_EXIT_S)


_background: _Background | None = None
_lock = threading.Lock()


def run_sync(call: Coroutine[Any, Any, _T]) -> _T:
    """Wait for a call of a client: `run_sync(shared_client(settings).run(python(code)))`.

    An interrupt (Ctrl-C) cancels the call, and with it the program.

    Raises:
        RuntimeError: this thread runs an event loop, which would stand still: `await` the call there.
        What the call raises.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        call.close()
        raise RuntimeError("run_sync was called in an event loop; `await` the client's call there instead")
    future = asyncio.run_coroutine_threadsafe(call, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _loop() -> asyncio.AbstractEventLoop:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
        return _background.loop


def _stop() -> None:
    if _background is not None:
        _background.stop()


def _forget() -> None:
    """In a forked process: threads are not inherited."""
    global _background, _lock
    _background, _lock = None, threading.Lock()


atexit.register(_stop)
os.register_at_fork(after_in_child=_forget)
