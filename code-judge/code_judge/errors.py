"""Why a submission has no verdict. None of these may be scored: the program was not judged."""

from __future__ import annotations


class JudgeSettingsError(ValueError):
    """A setting of the client is wrong; the message names it and says what it must be."""


class JudgeError(RuntimeError):
    """A submission has no verdict."""


class BadSubmission(JudgeError, ValueError):
    """A submission that can't be sent: the caller's mistake."""


class JudgeUnavailable(JudgeError):
    """The service gave no verdict within the deadline, or gave something that can't be trusted."""


class JudgeRefused(JudgeUnavailable):
    """The service refuses the request, and would refuse it again. `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, status)
        self.status = status

    def __str__(self) -> str:
        return str(self.args[0])


class JudgeMismatch(JudgeUnavailable):
    """The answers are not those of the submissions that were sent."""
