"""A job on its way through Redis, and the names of the keys it travels by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

RESULT_LIFE = 600  # seconds that an unread answer is kept


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

    def to_bytes(self) -> bytes:
        """The job as JSON."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        """The inverse of to_bytes."""
        return cls(**orjson.loads(data))


@dataclass(frozen=True)
class Keys:
    """The names of all keys of a service. The two streams differ in rank only: long batches wait for the
    others.
    """

    prefix: str

    GROUP = "workers"

    @property
    def jobs(self) -> str:
        """The stream of single runs and batches."""
        return f"{self.prefix}:jobs"

    @property
    def long_jobs(self) -> str:
        """The stream of long batches."""
        return f"{self.prefix}:long-jobs"

    @property
    def streams(self) -> tuple[str, str]:
        """Both, the first in rank first."""
        return (self.jobs, self.long_jobs)

    @property
    def hosts(self) -> str:
        """The set of host names that ever had workers."""
        return f"{self.prefix}:hosts"

    def host(self, name: str) -> str:
        """The heartbeat of a host; expires soon after the host's manager stopped."""
        return f"{self.prefix}:host:{name}"

    def reply(self, web: str) -> str:
        """The list of answers for one web process."""
        return f"{self.prefix}:reply:{web}"


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
    }
