"""Log lines of every process of the service: readable text, or one JSON object a line (LOG_FORMAT=json).

An event has a name and fields: `event(log, logging.WARNING, "worker_restarted", "worker 3 ended", slot=3)`.
Texts of jobs are never logged, and the service's own secrets are masked in whatever else is.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import sys
import time
import urllib.parse
from types import TracebackType

from app.settings import CHECKED, Settings, misspelt, without_password

_FIELDS = "code_judge_fields"
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {10: "\\n", 13: "\\r"}
_SHORTEST_SECRET = 4  # shorter ones are masked in addresses only: "a" would mask half of every line

_process = "code-judge"


def configure(settings: Settings, process: str) -> None:
    """Log to stderr from now on, as the settings say, and name this process `process` in each line."""
    become(process)
    secrets = [settings.token or "", *_passwords(settings.redis_uri)]
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(secrets) if settings.log_format == "json" else TextFormatter(secrets))
    root = logging.getLogger()
    for other in [other for other in root.handlers if type(other) is logging.StreamHandler]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of libraries
    logging.getLogger("code-judge").setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        # Without a way to a handler, uvicorn makes no access lines: ours (ACCESS_LOG) know route and job.
        logger.propagate = name != "uvicorn.access"
    logging.captureWarnings(True)
    if settings.log_format == "json":
        sys.excepthook = _log_uncaught


def become(process: str) -> None:
    """Name this process in its log lines; for a process that was forked from one with another name."""
    global _process
    _process = process


def event(log: logging.Logger, level: int, name: str, message: str, **fields: object) -> None:
    """Log an event. The JSON line has `fields` beside the message; the text line has the message alone."""
    if log.isEnabledFor(level):
        log.log(level, "%s", message, extra={_FIELDS: {"event": name, **fields}})


def warn_of_misspelt() -> None:
    """Log a line for each variable that was meant as a setting; in one process of a service only."""
    name = multiprocessing.current_process().name  # SpawnProcess-N: one of `uvicorn --workers`
    if CHECKED not in os.environ and name in ("MainProcess", "SpawnProcess-1"):
        for line in misspelt(os.environ):
            event(logging.getLogger("code-judge"), logging.WARNING, "unknown_setting", line)


class _Masking(logging.Formatter):
    def __init__(self, secrets: list[str]) -> None:
        super().__init__()
        forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
        parts = sorted((f for f in forms if len(f) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, parts))) if parts else None

    def _masked(self, line: str) -> str:
        line = without_password(line)
        return line if self._secret is None else self._secret.sub("***", line)


class TextFormatter(_Masking):
    """`2026-01-31 12:00:00.123 WARNING manager: message`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record. Control characters are escaped: no message can look like two lines."""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        message = record.getMessage().strip().translate(_CONTROL)
        line = f"{clock}.{int(record.msecs):03} {record.levelname} {_process}: {message}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._masked(line)


class JsonFormatter(_Masking):
    """One object a line: time (UTC), level, logger, process, pid, event, message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record: ASCII, whatever is in it."""
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts: dict[str, object] = {
            "time": f"{clock}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": _process,
            "pid": os.getpid(),
            "event": "message",
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            facts["traceback"] = self.formatException(record.exc_info)
        return self._masked(json.dumps(facts, default=str))


def _passwords(address: str | None) -> list[str]:
    """The password of a Redis address, as written and as meant."""
    if address is None:
        return []
    try:
        parts = urllib.parse.urlsplit(address)
    except ValueError:
        return []
    written = parts.netloc.rpartition("@")[0].partition(":")[2]
    query = urllib.parse.parse_qs(parts.query).get("password", [])
    return [written, urllib.parse.unquote(written), *query]


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("code-judge").critical(
        "uncaught %s", kind.__name__, exc_info=(kind, error, trace), extra={_FIELDS: {"event": "crash"}}
    )
