"""How to reach a judge, and how much to ask of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from code_judge.errors import JudgeSettingsError

URL_VARIABLE = "CODE_JUDGE_URL"
TOKEN_VARIABLE = "CODE_JUDGE_TOKEN"
TOKEN_FILE_VARIABLE = "CODE_JUDGE_TOKEN_FILE"
DEFAULT_URL = "http://127.0.0.1:8088"


@dataclass(frozen=True)
class JudgeSettings:
    """How to reach a judge.

    Attributes:
        url: base address, `http://host:port`; or several with commas between: they are asked in turn, and one
            that fails is left alone for a while.
        deadline_s: seconds from a submission's first request to its verdict, retries included. Not counted:
            waiting for room under `max_concurrency`.
        request_timeout_s: seconds for one request, a batch too. Above the service's own patience with a job
            that waits (MAX_QUEUE_WORK_LIFE_TIME + MAX_EXECUTION_TIME), or work that is done is asked for
            again.
        max_concurrency: programs of this process that are at one address at a time, over all clients, event
            loops and threads; a batch counts with all its programs.
        token: bearer token, where the service wants one.
        batch_size: submissions in a request of `run_many`, at most; never more than a quarter of
            `max_concurrency`.
        batch_bytes: bytes of JSON in such a request, at most, unless one submission alone is larger.
        retry_delay_s: seconds before the first retry; each further pause is twice as long, up to 5 s.

    Raises:
        JudgeSettingsError: a value is wrong.
    """

    url: str
    deadline_s: float = 180.0
    request_timeout_s: float = 90.0
    max_concurrency: int = 64
    token: str | None = field(default=None, repr=False)
    batch_size: int = 16
    batch_bytes: int = 4 << 20
    retry_delay_s: float = 0.05

    def __post_init__(self) -> None:
        _ = self.addresses
        for name in ("deadline_s", "request_timeout_s", "retry_delay_s"):
            _positive(name, getattr(self, name), int | float)
        for name in ("max_concurrency", "batch_size", "batch_bytes"):
            _positive(name, getattr(self, name), int)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise JudgeSettingsError("token must be printable ASCII; is there a line break at its end?")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses in `url`, without a slash at the end, each once."""
        parts = [part.strip() for part in self.url.split(",")] if isinstance(self.url, str) else []
        found = tuple(dict.fromkeys(_address(part) for part in parts if part))
        if not found:
            raise JudgeSettingsError(f"url={self.url!r} must be an address like http://host:8088.")
        return found

    @property
    def programs_per_batch(self) -> int:
        """Programs in one request of `run_many`, at most: several requests fit under the bound."""
        return max(1, min(self.batch_size, self.max_concurrency // 4))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **settings: Any) -> JudgeSettings:
        """The judge of CODE_JUDGE_URL (default: port 8088 of this machine), with the token of
        CODE_JUDGE_TOKEN, or of the file CODE_JUDGE_TOKEN_FILE, in `environment` (default: this process's).

        Raises:
            JudgeSettingsError: a value is wrong, or the file can't be read.
        """
        environment = os.environ if environment is None else environment
        given = {"url": environment.get(URL_VARIABLE) or DEFAULT_URL, "token": token_of(environment)}
        return cls(**{**given, **settings})


def token_of(environment: Mapping[str, str] | None = None) -> str | None:
    """The token that the environment gives, if any. Raises JudgeSettingsError if its file can't be read."""
    environment = os.environ if environment is None else environment
    token, path = environment.get(TOKEN_VARIABLE), environment.get(TOKEN_FILE_VARIABLE)
    if token or not path:
        return token or None
    try:
        return Path(path).read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeSettingsError(f"{TOKEN_FILE_VARIABLE}={path!r} can't be read: {error}") from error


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise JudgeSettingsError(f"url={text!r} must be an address like http://host:8088.")
    if "@" in parts.netloc:
        raise JudgeSettingsError("url must be without a name and password; the service knows a token only.")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def _positive(name: str, value: object, kinds: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
        what = "an integer" if kinds is int else "a number"
        raise JudgeSettingsError(f"{name}={value!r} must be {what} above 0.")
