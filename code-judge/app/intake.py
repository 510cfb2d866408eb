"""From a submission to a job, or at once to the answer that it is invalid."""

from __future__ import annotations

from typing import Any

from app.gateway import Gateway
from app.job import Job, outcome
from app.schema import Submission

_TRUE = ("1", "true", "yes", "on")


def accept(submission: Submission, gateway: Gateway, long: bool = False) -> Job | dict[str, Any]:
    """The job of a submission; if the submission can't be run, its answer with reason "invalid_input"."""
    if submission.type != "python":
        return _invalid(f'type "{submission.type}" is not supported by this service yet; "python" is')
    texts = (submission.solution, submission.input, submission.expected_output)
    for name, text in zip(("solution", "input", "expected_output"), texts, strict=True):
        if text is not None and not _encodable(text):
            return _invalid(f"{name} holds a lone surrogate, which is no text in UTF-8")
    options = submission.options or {}
    limit = gateway.settings.max_execution_time
    try:
        timeout = min(limit, _positive(options["timeout"])) if "timeout" in options else limit
        seed = int(options["seed"]) % 2**63 if "seed" in options else None
    except ValueError as error:
        return _invalid(f"options: {error}")
    return gateway.job(
        text=submission.solution,
        stdin=submission.input or "",
        expected=submission.expected_output,
        timeout=timeout,
        echo=options.get("echo_last", "").lower() in _TRUE,
        seed=seed,
        long=long,
    )


def _invalid(why: str) -> dict[str, Any]:
    return outcome(reason="invalid_input", stderr=why + "\n")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError(f"timeout must be a positive number of seconds, not {text!r}")
    return value
