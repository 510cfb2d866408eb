"""A job on its way through Redis, and the names of the keys it travels by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

RESULT_LIFE = 600  # seconds that an unread answer is kept


_HANDLING = 15.0  # seconds for reading a compiled program and files out of the sandbox, on a slow machine


@dataclass(frozen=True)
class Steps:
    """How a job runs that is more than one Python text."""

    language: Literal["python", "cpp"]
    compile_timeout: float = 0.0  # seconds; 0 where nothing is compiled
    memory_mib: int | None = None  # None: MAX_MEMORY
    files: dict[str, str] = field(default_factory=dict)  # path in the scratch folder: base64
    fetch: tuple[str, ...] = ()  # paths
    whole: bool = False  # the answer has "steps", what came of each, with output up to MAX_RUN_CODE_OUTPUT


@dataclass(frozen=True)
class Cases:
    """The tests of a job, all run after its text in the same process."""

    tests: tuple[str, ...]  # Python texts; with `expected` the arguments of calls, as JSON
    expected: tuple[str, ...] | None = None  # JSON; never leaves the worker
    function: str | None = None
    tolerance: float = 0.0
    stop_on_failure: bool = False
    timeout: float | None = None  # seconds for each test


@dataclass(frozen=True)
class Job:
    """All that a worker needs. `reply` is the key of the list that the answer goes to."""

    id: str
    reply: str
    text: str
    stdin: str
    expected: str | None
    timeout: float
    echo_last: bool
    seed: int | None
    life: float | None  # seconds that it may wait for a worker; None: as long as it takes
    steps: Steps | None = None  # None: the text is Python, and nothing else is asked for
    cases: Cases | None = None  # None: no tests but what the program prints
    math: bool = False  # the text is a final answer, `expected` what it is to equal

    @property
    def longest(self) -> float:
        """Seconds that a worker may take for it."""
        more = 0.0 if self.steps is None else self.steps.compile_timeout + _HANDLING
        return self.timeout + more

    def to_bytes(self) -> bytes:
        """The job as JSON."""
        return orjson.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """The inverse of to_bytes."""
        fields = orjson.loads(data)
        if (steps := fields.get("steps")) is not None:
            fields["steps"] = Steps(**{**steps, "fetch": tuple(steps["fetch"])})
        if (cases := fields.get("cases")) is not None:
            fields["cases"] = Cases(**cases)
        return cls(**fields)


@dataclass(frozen=True)
class Keys:
    """The names of all keys of a service. The streams differ in rank only: single runs pass batches, and long batches
    wait for all others.
    """

    prefix: str

    GROUP = "workers"

    @property
    def jobs(self) -> str:
        """The stream of single runs."""
        return f"{self.prefix}:jobs"

    @property
    def batch_jobs(self) -> str:
        """The stream of batches."""
        return f"{self.prefix}:batch-jobs"

    @property
    def long_jobs(self) -> str:
        """The stream of long batches."""
        return f"{self.prefix}:long-jobs"

    @property
    def streams(self) -> tuple[str, str, str]:
        """All, the first in rank first."""
        return (self.jobs, self.batch_jobs, self.long_jobs)

    @property
    def hosts(self) -> str:
        """The set of host names that ever had workers."""
        return f"{self.prefix}:hosts"

    def host(self, name: str) -> str:
        """The heartbeat of a host; expires soon after the host's manager stopped."""
        return f"{self.prefix}:host:{name}"

    @property
    def metrics(self) -> str:
        """The hash of everything that the processes of the service have counted."""
        return f"{self.prefix}:metrics"

    def reply(self, web: str) -> str:
        """The list of answers for one web process."""
        return f"{self.prefix}:reply:{web}"

    @staticmethod
    def alive(reply: str) -> str:
        """The heartbeat of the web process that reads the list `reply`; expires soon after the process ended."""
        return f"{reply}:alive"


def outcome(
    *,
    success: bool = False,
    run_success: bool = False,
    cost: float = 0.0,
    stdout: str = "",
    stderr: str = "",
    reason: str = "",
    retryable: bool = False,
    exception: str | None = None,
    tests: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The fields of a Result but sub_id, in their order of the contract."""
    return {
        "success": success,
        "run_success": run_success,
        "cost": cost,
        "stdout": stdout,
        "stderr": stderr,
        "reason": reason,
        "retryable": retryable,
        "exception": exception,
        "tests": tests,
    }
