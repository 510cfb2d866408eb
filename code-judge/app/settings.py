"""The settings of the service: read from the environment, typed, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.sandbox.isolation import PRIMITIVES

DEFAULT_REDIS_URI = "redis://localhost:6379"


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
    max_queue_work_life_time: float = Field(60.0, gt=0, description="seconds a job may wait for a worker")
    max_queue_length: int = Field(
        4096, ge=1, description="jobs waiting or running above which answers are 429"
    )
    max_body: int = Field(128, ge=1, description="MiB of the largest request")
    preload: str = Field(
        "numpy,sympy", description="modules imported once, before any program, comma-separated"
    )
    redis_key_prefix: str = Field(
        "code-judge", description="first part of all keys: services that share a server"
    )
    code_judge_token: str | None = Field(
        None, description="if set, POSTs need `Authorization: Bearer <token>`"
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
    def preload_modules(self) -> tuple[str, ...]:
        """`preload` as names."""
        return tuple(name for name in (part.strip() for part in self.preload.split(",")) if name)

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
    _ = settings.without_primitives
    return settings


def describe() -> Iterator[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting."""
    for name, field in Settings.model_fields.items():
        default = "the machine's cores" if field.default_factory else field.default
        yield name.upper(), "" if default is None else str(default), field.description or ""
