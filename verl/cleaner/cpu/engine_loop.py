"""The thread that owns the decoder.

Requests and commands come from other threads; both take effect between two decoding steps, so nothing ever changes the
weights or the cache in the middle of one. Admission is first come, first served. It is closed while anyone holds it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import torch

from cleaner.cpu.decoder import Decoder
from cleaner.cpu.requests import Completion, Request

logger = logging.getLogger(__name__)
T = TypeVar("T")


class EngineLoop:
    """Runs a decoder in a thread of its own.

    Args:
        build: makes the decoder; called in the thread.
        num_threads: torch's threads of one operation, which are a property of the calling thread.
    """

    def __init__(self, build: Callable[[], Decoder], num_threads: int) -> None:
        self._wake = threading.Condition()
        self._commands: deque[tuple[Callable[[Decoder], Any], Future[Any]]] = deque()
        self._waiting: deque[tuple[Request, Future[Completion]]] = deque()
        self._holders: set[str] = set()
        self._idle_waiters: list[Future[None]] = []
        self._running: dict[Request, Future[Completion]] = {}
        self._closed = False
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._main, args=(build, num_threads), name="hf_server", daemon=True
        )
        self._thread.start()

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait for the decoder; raises what building it raised."""
        self._ready.result(timeout)

    # -- called from other threads ------------------------------------------------------------------------------------

    def submit(self, request: Request) -> Future[Completion]:
        """Queue a request; its completion comes when it finishes or is aborted."""
        future: Future[Completion] = Future()
        with self._wake:
            if self._closed:
                raise RuntimeError("the rollout server is shut down")
            self._waiting.append((request, future))
            self._wake.notify()
        return future

    def call(self, function: Callable[[Decoder], T]) -> Future[T]:
        """Run ``function`` in the thread, between two steps, whether or not requests are running."""
        future: Future[T] = Future()
        with self._wake:
            if self._closed:
                raise RuntimeError("the rollout server is shut down")
            self._commands.append((function, future))
            self._wake.notify()
        return future

    def hold(self, holder: str) -> None:
        """Let no request join until :meth:`release`. Running ones go on."""
        with self._wake:
            self._holders.add(holder)

    def release(self, holder: str) -> None:
        """Undo :meth:`hold`; nothing happens if ``holder`` holds nothing."""
        with self._wake:
            self._holders.discard(holder)
            self._wake.notify()

    def when_idle(self) -> Future[None]:
        """Done at the first moment when no request is running (those that wait behind a hold don't count)."""
        future: Future[None] = Future()
        with self._wake:
            self._idle_waiters.append(future)
            self._wake.notify()
        return future

    def abort(self) -> Future[int]:
        """End all running and waiting requests; the answer is how many there were."""
        with self._wake:  # those that arrive from now on are not meant
            waiting, self._waiting = self._waiting, deque()

        def end(decoder: Decoder) -> int:
            ended = decoder.abort()
            self._resolve(ended)
            for _, future in waiting:
                _set(future, Completion([], [], "aborted", 0))
            return len(ended) + len(waiting)

        return self.call(end)

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        return len(self._running), len(self._waiting)

    def close(self) -> None:
        """Stop the thread; what has not finished fails."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=60)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _main(self, build: Callable[[], Decoder], num_threads: int) -> None:
        try:
            torch.set_num_threads(num_threads)
            decoder = build()
        except BaseException as error:
            self._closed = True
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        reason = "was shut down"
        try:
            self._serve(decoder)
        except BaseException as error:
            logger.exception("the rollout server's thread ends")
            reason = f"died of {type(error).__name__}: {error}"
        with self._wake:
            self._closed = True
            unanswered = [
                *self._running.values(),
                *(f for _, f in self._waiting),
                *(f for _, f in self._commands),
            ]
        for future in [*unanswered, *self._idle_waiters]:
            _fail(future, RuntimeError(f"the rollout server {reason}"))

    def _serve(self, decoder: Decoder) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._has_work(decoder))
                if self._closed:
                    return
                commands = list(self._commands)
                self._commands.clear()
                joining = []
                if not self._holders:
                    for _ in range(min(len(self._waiting), decoder.free_rows)):
                        joining.append(self._waiting.popleft())
            for function, future in commands:
                try:
                    _set(future, function(decoder))
                except Exception as error:
                    _fail(future, error)
            self._admit(decoder, joining)
            self._advance(decoder)
            if not decoder.running:
                with self._wake:
                    waiters, self._idle_waiters = self._idle_waiters, []
                for waiter in waiters:
                    _set(waiter, None)

    def _has_work(self, decoder: Decoder) -> bool:
        if self._closed or self._commands or decoder.running or self._idle_waiters:
            return True
        return bool(self._waiting) and not self._holders

    def _admit(self, decoder: Decoder, joining: list[tuple[Request, Future[Completion]]]) -> None:
        joining = [(request, future) for request, future in joining if future.set_running_or_notify_cancel()]
        if not joining:
            return
        try:
            decoder.admit([request for request, _ in joining])
        except Exception as error:
            logger.exception("%d requests could not join the batch", len(joining))
            for _, future in joining:
                _fail(future, error)
        else:
            self._running.update(joining)

    def _advance(self, decoder: Decoder) -> None:
        try:
            self._resolve(decoder.step())
        except Exception as error:
            logger.exception("a decoding step failed; its %d requests fail with it", decoder.running)
            for future in self._running.values():
                _fail(future, error)
            self._running.clear()
            decoder.abort()  # should even this fail, the thread ends and says so to everyone

    def _resolve(self, finished: list[tuple[Request, Completion]]) -> None:
        for request, completion in finished:
            _set(self._running.pop(request), completion)


def _set(future: Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
