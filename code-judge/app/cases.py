"""Tests of a program, many in one job: what its process says of each, compared with what was expected.

The process is in the hands of the program that is tested. Of what it writes to its report, only lines with
the job's nonce count, each for the next test in order; a test without a line has failed. The expected values
of calls stay here. See `app/sandbox/cases.py` for the other side.
"""

from __future__ import annotations

import json
import math
import secrets
from typing import Any

from app import verdict
from app.job import Cases, Job
from app.sandbox.capture import Capture
from app.sandbox.cases import LOADED, Plan
from app.sandbox.cell import Cell, Outcome
from app.sandbox.protocol import Order
from app.settings import Settings

_REST_LIMIT = 1 << 14
_RECORD_LIMIT = 1 << 16  # bytes of a record beside its value
_SWELL = 16  # a value that equals an expected one is at most so many times as long: 1.0000000000000002 for 1
_PLAIN = frozenset((bool, int, float, str, type(None)))
_ERROR_LIMIT = 1000  # characters; a program may have thousands of tests
_SHOWN = 200  # characters of a wrong value


class Records(Capture):
    """What comes of a job's tests, compared while it is read; holds one record at a time.

    `rest` is the beginning of everything else in the report, which is the hints that all programs may give.
    """

    def __init__(self, cases: Cases, nonce: str) -> None:
        super().__init__(0)
        self.cases = cases
        self.loaded = False
        self.results: list[dict[str, Any]] = []
        self.rest = bytearray()
        self._mark = nonce.encode() + b" "
        self._line = bytearray()
        self._cut = False  # the line is longer than anything that can be right

    def feed(self, data: bytes, final: bool = False) -> None:
        """Take the next bytes."""
        first, *others = data.split(b"\n")
        self._extend(first)
        for line in others:
            self._take()
            self._extend(line)
        if final:
            self._take()

    def _extend(self, data: bytes) -> None:
        room = self._room() - len(self._line)
        self._cut = self._cut or len(data) > room
        self._line += data[:room]

    def _room(self) -> int:
        expected = self.cases.expected
        number = len(self.results)
        known = expected is not None and number < len(expected)
        return _RECORD_LIMIT + (_SWELL * len(expected[number]) if expected is not None and known else 0)

    def _take(self) -> None:
        line, cut = bytes(self._line), self._cut
        self._line.clear()
        self._cut = False
        if not line.startswith(self._mark):
            self.rest += line[: max(0, _REST_LIMIT - len(self.rest) - 1)] + b"\n" if line else b""
            return
        number = len(self.results)
        if number >= len(self.cases.tests):
            return
        if cut:
            self.results.append(
                result(False, "wrong answer: the returned value is far longer than the expected")
            )
            return
        try:
            record = json.loads(line[len(self._mark) :])
            if record["n"] == LOADED:
                self.loaded = True
            elif record["n"] == number:
                self.results.append(self._judged(number, record))
        except Exception:  # forged, and in ways that nobody can list
            return

    def _judged(self, number: int, record: dict[str, Any]) -> dict[str, Any]:
        seconds = float(record["s"])
        if (error := record.get("e")) is not None:
            return result(False, str(error), seconds)
        if self.cases.expected is None:
            return result(record["ok"] is True, None, seconds)
        expected = json.loads(self.cases.expected[number])
        if equal(record["v"], expected, self.cases.tolerance):
            return result(True, None, seconds)
        return result(False, f"wrong answer: returned {_shown(record['v'])}", seconds)


def run(job: Job, cell: Cell, settings: Settings) -> dict[str, Any]:
    """The answer of a job with tests. Raises SandboxLost and ClientLeft."""
    cases = job.cases
    assert cases is not None
    nonce = secrets.token_hex(16)
    plan = Plan(
        nonce=nonce,
        texts=cases.expected is None,
        function=cases.function,
        stop=cases.stop_on_failure,
        timeout=cases.timeout,
    )
    order = Order(job.timeout, False, job.seed, cases=plan.to_dict())
    records = Records(cases, nonce)
    stdout, stderr = verdict.captures(job, settings.max_stdout_error_length)
    contents = json.dumps(cases.tests).encode()
    seen = cell.run(job.text.encode(), job.stdin.encode(), order, stdout, stderr, contents, report=records)
    seen.report = bytes(records.rest)
    answer = verdict.of_program(job, seen, stdout, stderr, settings.max_memory)
    results = complete(records, seen, job)
    return {
        **answer,
        "success": answer["run_success"] and all(r["passed"] for r in results),
        "tests": results,
    }


def complete(records: Records, seen: Outcome, job: Job) -> list[dict[str, Any]]:
    """The results of all tests, those without a record included."""
    cases = records.cases
    results = records.results
    if cases.stop_on_failure:
        for number, found in enumerate(results):
            if not found["passed"]:
                left = len(cases.tests) - number - 1
                return results[: number + 1] + [result(False, "not run: a test before it failed")] * left
    missing = len(cases.tests) - len(results)
    if not missing:
        return results
    why = _why(seen, job)
    if not records.loaded:
        return results + [result(False, f"not run: {why} before its tests")] * missing
    later = [result(False, f"not run: {why} in a test before it")] * (missing - 1)
    return [*results, result(False, f"no result: {why} in this test"), *later]


def _why(seen: Outcome, job: Job) -> str:
    if seen.timed_out:
        return f"the program was stopped after {job.timeout:g} s"
    if seen.over_memory:
        return "the program was stopped for its memory"
    return "the program ended"


def result(passed: bool, error: str | None = None, seconds: float = 0.0) -> dict[str, Any]:
    """The fields of a TestResult, whatever a program has made of them."""
    if error is not None:
        error = error[:_ERROR_LIMIT].encode("utf-8", "replace").decode()
    return {"passed": passed, "error": error, "seconds": seconds if 0 <= seconds < math.inf else 0.0}


def equal(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a value as `sandbox.value.sendable` makes it equals a value of JSON.

    As Python's `==` says, so 1, 1.0 and true are equal, lists in order, a set in any order; NaN equals NaN.
    Floating point numbers may differ by `tolerance`, absolute, or relative to the larger one.
    """
    if isinstance(value, dict):
        if "set" in value:
            items = value["set"]
            if not isinstance(expected, list) or len(items) != len(expected):
                return False
            return equal(sorted(items, key=_rank), sorted(expected, key=_rank), tolerance)
        pairs = value["dict"]
        found = dict(pairs)
        if not isinstance(expected, dict) or len(pairs) != len(expected) or found.keys() != expected.keys():
            return False
        return all(equal(found[key], item, tolerance) for key, item in expected.items())
    if isinstance(value, list):
        if not isinstance(expected, list) or len(value) != len(expected):
            return False
        if value == expected and _PLAIN.issuperset(map(type, value)):  # most often so, and quickly found
            return True
        return all(equal(*pair, tolerance) for pair in zip(value, expected, strict=True))
    if isinstance(value, float) or isinstance(expected, float):
        return _close(value, expected, tolerance)
    return bool(value == expected)


def _close(value: Any, expected: Any, tolerance: float) -> bool:
    if not isinstance(value, int | float) or not isinstance(expected, int | float):
        return False
    if value == expected or (value != value and expected != expected):
        return True
    try:
        return tolerance > 0 and math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond all floats
        return False


def _rank(value: Any) -> tuple[int, Any]:
    """A key by which members of sets, sent or expected, come in the same order."""
    if isinstance(value, int | float):
        return (0, value)
    if isinstance(value, str):
        return (1, value)
    if isinstance(value, list):
        return (2, [_rank(item) for item in value])
    if isinstance(value, dict) and "set" in value:
        return (2, sorted(map(_rank, value["set"])))
    return (3, json.dumps(value, sort_keys=True))


def _shown(value: Any) -> str:
    """A sent value as Python would show it, shortened."""
    text = _python(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _python(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_python, value)) + "]"
    if isinstance(value, dict) and "set" in value:
        return "{" + ", ".join(map(_python, value["set"])) + "}" if value["set"] else "set()"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_python(item)}" for key, item in value["dict"]) + "}"
    return repr(value)
