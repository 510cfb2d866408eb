"""From what a sandbox saw to what the service answers."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from app.job import Job, outcome
from app.sandbox.capture import Capture, Match
from app.sandbox.cell import Outcome

_FRAME = re.compile(rb'^  File "<code>", line (\d+) in (\S+)', re.MULTILINE)
_WAITING = re.compile(rb'^  File "[^"]*threading.py", line \d+ in _shutdown', re.MULTILINE)
_EXCEPTION = re.compile(rb"^exception (\w+)$", re.MULTILINE)


def of_program(job: Job, seen: Outcome, stdout: Capture, stderr: Capture, memory_mib: int) -> dict[str, Any]:
    """The answer for a program that was run. Only `seen.status` and the clock decide; the rest is wording."""
    exited = os.WIFEXITED(seen.status) and not seen.over_memory and not seen.timed_out
    run_success = exited and os.WEXITSTATUS(seen.status) == 0
    match = stdout.match
    success = run_success and (match is None or match.matched)
    exception = None
    note = ""
    if seen.timed_out:
        note = (
            f"Timed out: the program was stopped after {job.timeout:g} s{_position(seen.report, job.text)}\n"
        )
    elif seen.over_memory:
        exception = "MemoryError"
        note = f"MemoryError: the program was stopped: it used more than {memory_mib} MiB of memory\n"
    elif not os.WIFEXITED(seen.status):
        number = os.WTERMSIG(seen.status)
        note = f"The program was ended by signal {number} ({_signal_name(number)})\n"
    elif not run_success and (found := _EXCEPTION.search(seen.report)):
        exception = found[1].decode()
    return outcome(
        success=success,
        run_success=run_success,
        cost=round(seen.seconds, 6),
        stdout=stdout.text(),
        stderr=_with_note(stderr, note),
        reason="worker_timeout" if seen.timed_out else "",
        exception=exception,
    )


def captures(job: Job, limit: int) -> tuple[Capture, Capture]:
    """What to catch a job's stdout and stderr with."""
    match = None if job.expected is None else Match(job.expected)
    return Capture(limit, match), Capture(limit)


def _with_note(stderr: Capture, note: str) -> str:
    if not note:
        return stderr.text()
    stderr.limit = max(stderr.limit - len(note) - 1, stderr.limit // 2)
    text = stderr.text()
    return text + ("\n" if text and not text.endswith("\n") else "") + note


def _position(report: bytes, text: str) -> str:
    found = _FRAME.search(report)
    if found is None:
        return ", waiting for its threads to end" if _WAITING.search(report) else ""
    number = int(found[1])
    lines = text.splitlines()
    source = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    where = f", in {found[2].decode(errors='replace')[:80]}" if found[2] != b"<module>" else ""
    return f", in line {number}{where}:\n    {source[:200]}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
