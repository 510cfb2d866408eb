"""Tests of a program, run in its own process after it: calls of a function of it, or texts with asserts.

What came of each goes to the report descriptor as one line that starts with the job's nonce; the worker
believes no other line, and counts a test without one as failed. Values that a function returned are sent, not
judged: what was expected never comes here. See `app/cases.py` for the other side.

The program's code has run in this process before, so what this file needs of the standard library it takes
before that.
"""

from __future__ import annotations

import ast
import collections
import json
import linecache
import numbers
import os
import signal
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.sandbox import installed

LOADED = -1  # the number in the first record: the program's own text has been run
_AGAIN = 0.25  # seconds after which a test that swallowed the end of its time is told again
_SHOWN = 3  # tracebacks in stderr
_ERROR_LIMIT = 500  # characters of one
_SEQUENCES: tuple[Any, ...] = (
    list,
    tuple,
    collections.deque,
    range,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)

_PLAIN = frozenset((bool, int, float, str, type(None)))

_write, _clock, _exec, _compile = os.write, time.perf_counter, exec, compile
_set_timer, _signal = signal.setitimer, signal.signal
_encoder = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


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
        self._shown = 0

    def run(self, module: types.ModuleType) -> None:
        """Run all tests in `module`, whose text has been run without an exception."""
        plan = self._plan
        self._send({"n": LOADED})
        if plan.timeout is not None:
            _signal(signal.SIGALRM, self._ring)
        for number, test in enumerate(self._tests):
            call = self._text if plan.texts else self._call
            record: dict[str, Any] = {"n": number}
            started = _clock()
            try:
                record |= self._timed(call, module, number, test)
            except _Overrun:
                record["e"] = f"timed out: the test was stopped after {plan.timeout:g} s"
            except BaseException as error:
                record["e"] = self._told(number, error)
            record["s"] = round(_clock() - started, 6)
            self._send(record)
            if plan.stop and "e" in record:
                return

    def _send(self, record: dict[str, Any]) -> None:
        # A line of its own, whatever the program has written before.
        data = memoryview(f"\n{self._plan.nonce} {_encoder(record)}\n".encode())
        while data:
            data = data[_write(self._report, data) :]

    def _timed(
        self, call: Callable[[types.ModuleType, int, str], dict[str, Any]], *arguments: Any
    ) -> dict[str, Any]:
        if self._plan.timeout is None:
            return call(*arguments)
        try:
            self._armed = True
            _set_timer(signal.ITIMER_REAL, self._plan.timeout, _AGAIN)
            return call(*arguments)
        finally:
            self._armed = False
            _set_timer(signal.ITIMER_REAL, 0)

    def _ring(self, number: int, frame: types.FrameType | None) -> None:
        if self._armed:
            raise _Overrun

    def _call(self, module: types.ModuleType, number: int, test: str) -> dict[str, Any]:
        function = self._function(module)
        given = json.loads(test)
        value = function(**given) if isinstance(given, dict) else function(*given)
        return {"v": sendable(value)}

    def _text(self, module: types.ModuleType, number: int, test: str) -> dict[str, Any]:
        name = f"<test {number}>"
        linecache.cache[name] = (len(test), None, test.splitlines(keepends=True), name)
        tree = _compile(test, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        assert isinstance(tree, ast.Module)
        namespace = module.__dict__
        if self._plan.function is not None:
            namespace["candidate"] = self._function(module)
        _exec(_compile(tree, name, "exec", dont_inherit=True), namespace)
        if only_defines_check(tree):
            if self._plan.function is None:
                raise LookupError("a test that defines `check` is called with a function: give `fn_name`")
            namespace["check"](namespace["candidate"])
        return {"ok": True}

    def _function(self, module: types.ModuleType) -> Any:
        """The function to test: of the module, or of a new `Solution`."""
        name = self._plan.function or ""
        namespace = module.__dict__
        if callable(found := namespace.get(name)):
            return found
        kind = namespace.get("Solution")
        if isinstance(kind, type) and callable(getattr(kind, name, None)):
            return getattr(kind(), name)
        raise _Missing(f"the program defines no function {name!r}, nor a class Solution with one")

    def _told(self, number: int, error: BaseException) -> str:
        """An exception in one line, with the place where the program, or the test, was. The first few also go
        to stderr, whole.
        """
        if isinstance(error, _Missing):
            return str(error)
        try:
            if isinstance(error, ModuleNotFoundError):
                installed.explain(error)
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
                frames = frames.tb_next
            if self._shown < _SHOWN:
                self._shown += 1
                sys.stdout.flush()
                whole = traceback.TracebackException(type(error), error, frames, compact=True)
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


class _Missing(Exception):
    """There is no function to test."""


def only_defines_check(tree: ast.Module) -> bool:
    """Whether a test defines a function `check` and leaves the call to us, as those of HumanEval do."""
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    kinds = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef
    called = any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == "check"
        for node in tree.body
        if not isinstance(node, kinds)
        for part in ast.walk(node)
    )
    return defined and not called


def sendable(value: Any) -> Any:
    """A returned value as JSON can hold it.

    Sequences become lists, numpy's values what their `tolist` gives, decimals and fractions numbers. A JSON
    object is never a value of its own: {"dict": [[key, value], ...]} is a dictionary, its keys texts as JSON
    writes them, and {"set": [...]} a set. Raises TypeError for anything else.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is list and _PLAIN.issuperset(map(type, value)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, _SEQUENCES):
        return [sendable(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": [sendable(item) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key), sendable(item)] for key, item in value.items()]}
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return sendable(value.tolist())
    if isinstance(value, numbers.Rational):
        return int(value.numerator) if value.denominator == 1 else float(value)
    if kind.__module__ in ("decimal", "_decimal") or isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(
        f"the function returned a value of type {kind.__name__}, which can't be compared with JSON"
    )


def _key(key: Any) -> str:
    key = sendable(key)
    if isinstance(key, str):
        return key
    if isinstance(key, list | dict):
        raise TypeError("the function returned a dict with a key that is no text and no number")
    return _encoder(key)
