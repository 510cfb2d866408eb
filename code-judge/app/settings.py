"""The settings of the service: read from the environment, typed, checked before anything starts."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.sandbox.isolation import PRIMITIVES

DEFAULT_REDIS_URI = "redis://localhost:6379"
CHECKED = "_CODE_JUDGE_CHECKED"  # set for processes whose parent has told what is misspelt
_SPARE_DRAIN = 2.0  # seconds beyond the time limit in which a stopping service answers what it accepted
_PREFIX = "CODE_JUDGE_"
_FOREIGN = ("CODE_JUDGE_URL",)  # the variable of clients: it says where a service is
_ALIKE = 0.88  # similarity above which a variable is held for a misspelt setting: REDIS_URL is


class SettingsError(Exception):
    """A setting is wrong; the message is one line and names the variable."""


class Settings(BaseSettings):
    """Every setting. The environment variable is the field's name in capitals."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", env_ignore_empty=True)

    redis_uri: str | None = Field(
        None, description=f"Redis or Valkey server; unset: {DEFAULT_REDIS_URI}, or a private one for `serve`"
    )
    run_workers: bool = Field(True, description="whether the web process starts workers on its machine")
    max_workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=4096,
        description="workers on this machine",
    )
    max_execution_time: float = Field(
        10.0, gt=0, le=3600, description="seconds a program may run (wall clock)"
    )
    max_memory: int = Field(256, ge=16, description="MiB a program may use, all its processes together")
    max_disk: int = Field(64, ge=1, description="MiB a program may write into its scratch folder")
    max_processes: int = Field(64, ge=1, description="processes and threads a program may have at a time")
    max_stdout_error_length: int = Field(
        1000, ge=1, description="characters kept of stdout and of stderr, head and tail"
    )
    cpp_compiler_path: str | None = Field(
        None, description="C++ compiler, a path or a name in the workers' PATH; unset: g++, else clang++"
    )
    cpp_flags: str = Field("-O2 -std=c++17", description="what a C++ program is compiled with")
    cpp_cache: int = Field(
        16, ge=0, description="MiB of compiled programs that each worker remembers for more tests of a source"
    )
    max_compile_time: float = Field(10.0, gt=0, le=3600, description="seconds a compilation may take")
    max_compile_memory: int = Field(512, ge=16, description="MiB a compilation may use")
    max_run_code_output: int = Field(
        1 << 20, ge=1, description="characters kept of stdout and of stderr, head and tail, by /run_code"
    )
    max_fetch: int = Field(16, ge=0, description="MiB of files that /run_code may bring back for one request")
    max_queue_work_life_time: float = Field(60.0, gt=0, description="seconds a job may wait for a worker")
    max_queue_length: int = Field(
        4096, ge=1, description="jobs waiting or running above which answers are 429"
    )
    max_body: int = Field(128, ge=1, description="MiB of the largest request")
    redis_persist: bool = Field(
        True, description="whether the private server of `serve` keeps jobs and answers in a file"
    )
    data_dir: str | None = Field(
        None, description="folder of that file; unset: one that ends with the service, and the jobs with it"
    )
    preload: str = Field(
        "numpy,sympy", description="modules imported once, before any program, comma-separated"
    )
    redis_key_prefix: str = Field(
        "code-judge", description="first part of all keys: services that share a server"
    )
    drain_timeout: float | None = Field(
        None,
        ge=0,
        le=86400,
        description="seconds in which a stopping service answers what it accepted; "
        f"unset: MAX_EXECUTION_TIME + {_SPARE_DRAIN:g}",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="`json`: each event is one JSON line on stderr"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least important events to log"
    )
    access_log: bool = Field(False, description="log each request: route, status, ms, client, sub_id")
    code_judge_token: SecretStr | None = Field(
        None, description="if set, POSTs need `Authorization: Bearer <token>`"
    )
    code_judge_token_file: str | None = Field(
        None, description="file that holds the token, instead of CODE_JUDGE_TOKEN"
    )
    code_judge_allow_unsafe: bool = Field(False, description="run programs even where nothing isolates them")
    code_judge_without: str = Field(
        "", description=f"isolation primitives not to use, comma-separated: {' '.join(PRIMITIVES)}"
    )

    @property
    def redis_address(self) -> str:
        """The server to use where none is started."""
        return self.redis_uri or DEFAULT_REDIS_URI

    @property
    def drain_seconds(self) -> float:
        """`drain_timeout`, or what follows from the time limit."""
        return self.max_execution_time + _SPARE_DRAIN if self.drain_timeout is None else self.drain_timeout

    @property
    def token(self) -> str | None:
        """The token that POSTs must send. `load` has read and checked it."""
        return None if self.code_judge_token is None else self.code_judge_token.get_secret_value()

    @property
    def preload_modules(self) -> tuple[str, ...]:
        """`preload` as names."""
        return tuple(name for name in (part.strip() for part in self.preload.split(",")) if name)

    @property
    def compiler_flags(self) -> tuple[str, ...]:
        """`cpp_flags` as a shell would split them. Raises SettingsError."""
        try:
            return tuple(shlex.split(self.cpp_flags))
        except ValueError as error:
            raise SettingsError(f"CPP_FLAGS={self.cpp_flags!r}: {error}") from None

    @property
    def without_primitives(self) -> frozenset[str]:
        """`code_judge_without` as names. Raises SettingsError for an unknown one."""
        names = frozenset(part.strip() for part in self.code_judge_without.split(",") if part.strip())
        if unknown := names - set(PRIMITIVES):
            raise SettingsError(
                f"CODE_JUDGE_WITHOUT: unknown primitive {sorted(unknown)[0]!r}; known are {', '.join(PRIMITIVES)}"
            )
        return names


def load() -> Settings:
    """Read the settings from the environment. Raises SettingsError."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        raise SettingsError(
            f"{name}={first['input']!r}: {first['msg']}; `code-judge settings` lists all"
        ) from None
    _ = settings.without_primitives, settings.compiler_flags
    if settings.code_judge_token_file is not None:
        settings = settings.model_copy(update={"code_judge_token": _token_of_file(settings)})
    if settings.token is not None and not re.fullmatch(r"[!-~]+", settings.token):
        raise SettingsError(
            "CODE_JUDGE_TOKEN: use printable ASCII without spaces (`openssl rand -hex 32` makes a good one): "
            "others can't be sent in a header"
        )
    return settings


def _token_of_file(settings: Settings) -> SecretStr:
    path = settings.code_judge_token_file
    assert path is not None
    if settings.code_judge_token is not None:
        raise SettingsError("CODE_JUDGE_TOKEN and CODE_JUDGE_TOKEN_FILE are both set: unset one")
    try:
        with open(path, encoding="latin-1") as file:
            text = file.read(1 << 16).strip()
    except OSError as error:
        raise SettingsError(f"CODE_JUDGE_TOKEN_FILE={path!r}: {error.strerror}") from None
    if not text:
        raise SettingsError(f"CODE_JUDGE_TOKEN_FILE={path!r}: the file is empty")
    return SecretStr(text)


@dataclass(frozen=True)
class Described:
    """One setting as a user sees it. Secrets are masked."""

    variable: str
    value: str
    default: str
    meaning: str
    changed: bool


def describe(settings: Settings) -> Iterator[Described]:
    """Every setting, in order."""
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        default = field.get_default(call_default_factory=True)
        yield Described(
            name.upper(), _shown(value), _shown(default), field.description or "", value != default
        )


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    return without_password(f"{value:g}" if isinstance(value, float) else str(value))


def without_password(text: str) -> str:
    """The text with user and password of every address in it masked."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1***@", text)


def misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that was surely meant as a setting, but is none."""
    known = {name.upper().removeprefix(_PREFIX): name.upper() for name in Settings.model_fields}
    for name in sorted(environment):
        wanted = name.upper()
        if wanted in known.values() or wanted in _FOREIGN:
            continue
        ours = wanted.startswith(_PREFIX)
        if ours:
            near = difflib.get_close_matches(wanted.removeprefix(_PREFIX), known, 1)
        else:
            near = [other for other in difflib.get_close_matches(wanted, known, 1, _ALIKE) if "_" in other]
        if near and (ours or near[0] not in environment):
            yield f"{name} is no setting and is ignored: did you mean {known[near[0]]}?"
        elif ours:
            yield f"{name} is no setting and is ignored; `code-judge settings` lists all"
