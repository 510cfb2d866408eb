"""Real execution through code-judge: the same client, and the same observation texts, as the training tool."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cleaner.coldstart.episodes import Observation
from cleaner.errors import ConfigError
from cleaner.saar.outcome import INFRASTRUCTURE, OK
from cleaner.tools.observation import observation_text, status_of, truncate
from code_judge.client import JudgeClient, JudgeSettings, JudgeSettingsError, JudgeUnavailable, python

ERROR_STYLE = "last_line"
"""The tool's ``error_style`` in the quick start; a small model has no room for tracebacks."""

MAX_TOKENS = 64
"""The tool's ``max_observation_tokens`` in the quick start."""

_CONCURRENCY = 16


class JudgeExecutor:
    """An ``Execute`` (see ``episodes``); a program that was run once is not run again."""

    def __init__(self, settings: JudgeSettings) -> None:
        self._settings = settings
        self._seen: dict[str, Observation] = {}

    def __call__(self, programs: Sequence[str], /) -> list[Observation]:
        """Run the programs; raises ``ConfigError`` when the service can't be used."""
        new = [program for program in dict.fromkeys(programs) if program not in self._seen]
        if new:
            self._seen.update(zip(new, asyncio.run(self._run(new)), strict=True))
        return [self._seen[program] for program in programs]

    async def _run(self, programs: Sequence[str]) -> list[Observation]:
        submissions = [python(program, echo_last=True) for program in programs]
        try:
            async with JudgeClient(self._settings) as client:
                replies = await client.run_many(submissions)
        except JudgeUnavailable as error:
            raise ConfigError(f"code-judge can't be used: {error}") from error
        return [_observation(reply) for reply in replies]


def _observation(reply: Mapping[str, Any]) -> Observation:
    status = status_of(reply)
    if status == INFRASTRUCTURE:
        raise ConfigError(f"code-judge could not run a program: {reply.get('reason')}")
    return Observation(truncate(observation_text(reply, ERROR_STYLE), MAX_TOKENS), status == OK)


def judge_executor(url: str) -> JudgeExecutor:
    """An executor for the service at ``url``, checked with one program.  ``ConfigError`` when it doesn't answer."""
    try:
        settings = JudgeSettings.from_environment(url=url, deadline_s=60.0, max_concurrency=_CONCURRENCY)
    except JudgeSettingsError as error:
        raise ConfigError(f"code-judge: {error}") from error
    check = JudgeExecutor(replace(settings, deadline_s=3.0))
    (seen,) = check(["print(6 * 7)"])
    if not seen.ok or seen.text != "42":
        raise ConfigError(f"code-judge at {url} answers print(6 * 7) with {seen.text!r}")
    return JudgeExecutor(settings)
