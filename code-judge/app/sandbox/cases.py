"""Tests of a program, run in its own process after it: calls of a function of it, or texts with asserts.

What came of each goes to the report descriptor as one line that starts with the job's nonce; the worker
believes no other line, and counts a test without one as failed. Values that a function returned are sent, not
judged: what was expected never comes here. See `app/cases.py` for the other side.

The program's code has run in this process before, so what this file needs of the standard library it takes
before that.
"""

from __future__ import annotations

import ast
import contextlib
import json
import linecache
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.sandbox import installed, testtext
from app.sandbox.value import sendable

LOADED = -1  # the number in the first record: the program's own text has been run
_AGAIN = 0.25  # seconds after which a test that swallowed the end of its time is told again
_SHOWN = 3  # tracebacks in stderr
_ERROR_LIMIT = 500  # characters of one
_OWN = (__file__, testtext.__file__)

_write, _clock, _exec, _compile = os.write, time.perf_counter, exec, compile
_set_timer, _signal = signal.setitimer, signal.signal
_encode, _decode = (
    json.JSONEncoder(separators=(",", ":"), check_circular=False).encode,
    json.JSONDecoder().decode,
)


@dataclass(frozen=True)
class Plan:
    """How the tests of a job are run. The tests themselves come as a descriptor: a JSON list of texts."""

    nonce: str
    texts: bool  # Python texts, else JSON arguments: a list, or an object of keyword arguments
    function: str | None
    stop: bool  # at the first failure that is seen here: an exception
    timeout: float | None  # seconds for each

    def to_dict(self) -> dict[str, Any]:
        """The fields, for `Order.cases`."""
        return asdict(self)


class _Overrun(BaseException):
    """The time of one test is over."""


class Cases:
    """The tests of one program."""

    def __init__(self, fields: Mapping[str, Any], contents: bytes, report: int, filename: str) -> None:
        """fields: of a Plan. contents: the tests. filename: that of the program's code."""
        self._plan = Plan(**fields)
        self._tests: list[str] = json.loads(contents)
        self._report = report
        self._filename = filename
        self._armed = False
        self._rung = False
        self._shown = 0

    def run(self, module: types.ModuleType) -> None:
        """Run all tests in `module`, whose text has been run without an exception."""
        plan = self._plan
        self._send(_encode({"n": LOADED}))
        if plan.timeout is not None:
            _signal(signal.SIGALRM, self._ring)
        for number, test in enumerate(self._tests):
            call = self._text if plan.texts else self._call
            failure = None
            started = _clock()
            try:
                found = self._timed(call, module, number, test)
            except _Overrun:
                failure = f"timed out: the test was stopped after {plan.timeout:g} s"
            except BaseException as error:
                failure = self._told(number, error)
            seconds = round(_clock() - started, 6)
            if failure is None:
                self._send(f'{{"n":{number},"s":{seconds},{found}}}')
            else:
                self._send(_encode({"n": number, "s": seconds, "e": failure}))
                if plan.stop:
                    return

    def _send(self, record: str) -> None:
        # A line of its own, whatever the program has written before.
        data = memoryview(f"\n{self._plan.nonce} {record}\n".encode())
        while data:
            data = data[_write(self._report, data) :]

    def _timed(self, call: Callable[[types.ModuleType, int, str], str], *arguments: Any) -> str:
        if self._plan.timeout is None:
            return call(*arguments)
        self._rung = False
        try:
            self._armed = True
            _set_timer(signal.ITIMER_REAL, self._plan.timeout, _AGAIN)
            found = call(*arguments)
        finally:
            self._armed = False
            _set_timer(signal.ITIMER_REAL, 0)
        if self._rung:  # the program caught what should have stopped it
            raise _Overrun
        return found

    def _ring(self, number: int, frame: types.FrameType | None) -> None:
        if self._armed:
            self._rung = True
            raise _Overrun

    def _call(self, module: types.ModuleType, number: int, test: str) -> str:
        function = self._function(module)
        given = _decode(test)
        value = function(**given) if isinstance(given, dict) else function(*given)
        try:
            return f'"v":{_encode(sendable(value))}'
        except Exception as error:
            raise _Unfit(f"{type(error).__name__}: {error}") from None

    def _text(self, module: types.ModuleType, number: int, test: str) -> str:
        name = f"<test {number}>"
        linecache.cache[name] = (len(test), None, test.splitlines(keepends=True), name)
        tree = _compile(test, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        namespace = module.__dict__
        if self._plan.function is not None:
            namespace["candidate"] = self._function(module)
        _exec(_compile(tree, name, "exec", dont_inherit=True), namespace)
        for left in testtext.left_to_call(tree):
            if left != "check":
                testtext.call(namespace[left])
            elif self._plan.function is None:
                raise LookupError("a test that defines `check` is called with a function: give `fn_name`")
            else:
                namespace[left](namespace["candidate"])
        return '"ok":true'

    def _function(self, module: types.ModuleType) -> Any:
        """The function to test: of the module, or of a new `Solution`."""
        name = self._plan.function or ""
        namespace = module.__dict__
        if callable(found := namespace.get(name)):
            return found
        kind = namespace.get("Solution")
        if isinstance(kind, type) and callable(getattr(kind, name, None)):
            return getattr(kind(), name)
        raise _Unfit(f"the program defines no function {name!r}, nor a class Solution with one")

    def _told(self, number: int, error: BaseException) -> str:
        """An exception in one line, with the place where the program, or the test, was. The first few also go
        to stderr, whole.
        """
        if isinstance(error, _Unfit):
            return str(error)
        try:
            if isinstance(error, ModuleNotFoundError):
                installed.explain(error)
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename in _OWN:
                frames = frames.tb_next
            if self._shown < _SHOWN:
                self._shown += 1
                whole = traceback.TracebackException(type(error), error, frames, compact=True)
                with contextlib.suppress(Exception):  # the program may have closed its streams
                    sys.stdout.flush()
                    print(f"Test {number}:\n{''.join(whole.format())}", end="", file=sys.stderr, flush=True)
            text = f"{type(error).__name__}: {error}".rstrip(": ")[:_ERROR_LIMIT]
            return text + self._place(error, frames, f"<test {number}>")
        except BaseException:
            return type(error).__name__

    def _place(self, error: BaseException, frames: types.TracebackType | None, test: str) -> str:
        if isinstance(error, SyntaxError) and error.filename == test:
            return f" (line {error.lineno} of the test)"
        place = ""
        for frame, line in traceback.walk_tb(frames):
            code = frame.f_code
            if code.co_filename == self._filename:
                place = f" (line {line}, in {code.co_name})"
            elif code.co_filename == test:
                source = linecache.getline(test, line).strip()
                place = f" (line {line} of the test: {source[:200]})"
        return place


class _Unfit(Exception):
    """There is no function to test, or no way to send what it returned."""
