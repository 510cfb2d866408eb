"""What the model is shown of a run: short, and in one place, so that training data and rollouts look the same."""

import re
from collections.abc import Mapping
from typing import Any

from cleaner.saar.outcome import FORMAT_ERROR, INFRASTRUCTURE, OK, PROGRAM_ERROR, TIMEOUT

NO_OUTPUT = "(no output: print() what you want to see)"
NO_MESSAGE = "The program failed without a message."
ERROR_STYLES = ("traceback", "last_line")

_TRACEBACK_HEADER = "Traceback (most recent call last):\n"
# The judge runs the program under this name; frames of libraries have paths.
_OWN_LINE = re.compile(r'^\s*File "<[^">]*>", line (\d+)', re.MULTILINE)
# The default repr of an object: its address is another one in every run, and means nothing to the model.
_ADDRESS = re.compile(r"(?<= at )0x[0-9A-Fa-f]+(?=>)")
_TIMEOUT_NOTE = re.compile(r"^Timed out: (.*)$", re.MULTILINE)


def status_of(reply: Mapping[str, Any]) -> str:
    """Tool status (`cleaner.saar.outcome`) of a judge's answer to `/run`."""
    if reply.get("run_success"):
        return OK
    reason = reply.get("reason") or ""
    if reason == "worker_timeout":
        return TIMEOUT
    if reason == "invalid_input":
        return FORMAT_ERROR
    if reply.get("retryable") or reason in ("internal_error", "queue_timeout"):
        return INFRASTRUCTURE
    return PROGRAM_ERROR


def exception_of(reply: Mapping[str, Any]) -> str | None:
    """Class name of the exception that ended the program, None if it is not known."""
    told = reply.get("exception")
    return str(told) if told else None


def observation_text(reply: Mapping[str, Any], error_style: str = "traceback") -> str:
    """The text that the model is shown.

    Addresses in the default repr of objects are blanked, so that equal programs give equal text in every run.

    Success: what the program printed. Failure: `traceback` shows what was printed and the traceback; `last_line` only
    the error and its line, for models with little room: `NameError: name 'math' is not defined (line 3)`.

    Args:
        reply: a judge's answer to `/run`; only `run_success`, `reason`, `stdout` and `stderr` are read here.

    Raises:
        ValueError: an unknown style.
    """
    if error_style not in ERROR_STYLES:
        raise ValueError(f"error_style={error_style!r} must be one of {', '.join(ERROR_STYLES)}")
    stdout = _ADDRESS.sub("0x...", str(reply.get("stdout") or "").strip())
    stderr = _ADDRESS.sub("0x...", str(reply.get("stderr") or "").strip())
    status = status_of(reply)
    if status == OK:
        return stdout or NO_OUTPUT
    if status == FORMAT_ERROR:
        return f"The code could not be run: {stderr or 'it is not valid text'}"
    error = _timeout_text(stderr) if status == TIMEOUT else _error_text(stderr, error_style)
    if error_style == "last_line":
        return error
    return f"{stdout}\n{error}" if stdout else error


def _timeout_text(stderr: str) -> str:
    note = _TIMEOUT_NOTE.search(stderr)
    return f"TimeoutError: {note.group(1) if note else 'the program took too long'}"


def _error_text(stderr: str, error_style: str) -> str:
    if not stderr:
        return NO_MESSAGE
    if error_style == "traceback":
        return stderr
    _, _, trace = stderr.rpartition(_TRACEBACK_HEADER)
    lines = _OWN_LINE.findall(trace)
    last = _last_line(trace)
    return f"{last} (line {lines[-1]})" if lines else last


def _last_line(text: str) -> str:
    """The line with the exception: after the frames, the first line that is not indented."""
    lines = text.splitlines()
    frames = [index for index, line in enumerate(lines) if line.startswith(" ")]
    behind = lines[frames[-1] + 1 :] if frames else lines
    return next((line.strip() for line in behind if line.strip()), lines[-1].strip())


def truncate(text: str, max_tokens: int, tokenizer: Any = None) -> str:
    """`text` in at most about `max_tokens` tokens: its head and its tail, with a marker between.

    The end of a traceback says what went wrong, so the tail gets more. Without a tokenizer a token counts as four
    characters.
    """
    # A token is at least one byte of text.
    if len(text.encode("utf-8", "surrogatepass")) <= max_tokens:
        return text
    if tokenizer is None:
        size = max_tokens * 4
        head = size // 3
        cut = len(text) - size
        return (
            text
            if cut <= 0
            else f"{text[:head]}{_omitted(cut, 'characters')}{text[len(text) - size + head :]}"
        )
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) <= max_tokens:
        return text
    head = max_tokens // 3
    first, last = tokenizer.decode(ids[:head]), tokenizer.decode(ids[len(ids) - max_tokens + head :])
    # A character that is cut in two decodes to replacement characters.
    return f"{first.rstrip(chr(0xFFFD))}{_omitted(len(ids) - max_tokens, 'tokens')}{last.lstrip(chr(0xFFFD))}"


def _omitted(count: int, unit: str) -> str:
    return f"\n... [{count} {unit} omitted] ...\n"
