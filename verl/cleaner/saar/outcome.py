"""What became of a tool call, as data: no later step searches the text that the model sees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OK = "ok"
PROGRAM_ERROR = "program_error"
TIMEOUT = "timeout"
FORMAT_ERROR = "format_error"
INFRASTRUCTURE = "infrastructure"

STATUSES = (OK, PROGRAM_ERROR, TIMEOUT, FORMAT_ERROR, INFRASTRUCTURE)
# Failures that are the model's own and may therefore be rolled back.
MODEL_FAILURES = (PROGRAM_ERROR, TIMEOUT, FORMAT_ERROR)


@dataclass(frozen=True)
class ToolOutcome:
    """The structured result of one tool call.

    Attributes:
        status: `ok`; `program_error` (the code or tool raised); `timeout`; `format_error` (the call could not be
            parsed, names no known tool, or does not fit the tool's schema); `infrastructure` (the tool's service was
            unreachable, overloaded or broke: not the model's doing).
        exception: class name of the exception behind a failure, where known (`NameError`).
        text: what the model is shown.
        retryable: whether the same call could succeed if it were simply made again.

    Raises:
        ValueError: an unknown status.
    """

    status: str
    exception: str | None = None
    text: str = ""
    retryable: bool = False

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown tool status {self.status!r}; valid: {', '.join(STATUSES)}")

    @property
    def ok(self) -> bool:
        return self.status == OK

    @property
    def label(self) -> str:
        """The name under which a failure is counted: its exception class, else its status."""
        return self.exception or self.status

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ToolOutcome":
        """Inverse of `to_dict`; keys it does not know are ignored."""
        return cls(**{key: data[key] for key in ("status", "exception", "text", "retryable") if key in data})
