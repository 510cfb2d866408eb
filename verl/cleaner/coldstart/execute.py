"""Real execution through code-judge: the same client, and the same observation texts, as the training tool."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from cleaner.coldstart.episodes import Observation
from cleaner.errors import ConfigError
from cleaner.saar.outcome import INFRASTRUCTURE, OK
from cleaner.tools.judge_client import JudgeClient, JudgeSettings, JudgeUnavailable
from cleaner.tools.observation import observation_text, status_of, truncate

ERROR_STYLE = "last_line"
"""The tool's ``error_style`` in the quick start; a small model has no room for tracebacks."""

MAX_TOKENS = 64
"""The tool's ``max_observation_tokens`` in the quick start."""

_OPTIONS = {"echo_last": "1"}
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
        client = JudgeClient(self._settings)
        try:
            replies = await asyncio.gather(*(client.run_python(program, _OPTIONS) for program in programs))
        except JudgeUnavailable as error:
            raise ConfigError(f"code-judge can't be used: {error}") from error
        finally:
            await client.close()
        return [_observation(reply) for reply in replies]


def _observation(reply: dict[str, Any]) -> Observation:
    status = status_of(reply)
    if status == INFRASTRUCTURE:
        raise ConfigError(f"code-judge could not run a program: {reply.get('reason')}")
    return Observation(truncate(observation_text(reply, ERROR_STYLE), MAX_TOKENS), status == OK)


def judge_executor(url: str) -> JudgeExecutor:
    """An executor for the service at ``url``, checked with one program.  ``ConfigError`` when it doesn't answer."""
    token = os.environ.get("CODE_JUDGE_TOKEN") or None
    settings = JudgeSettings(url, deadline_s=60.0, max_concurrency=_CONCURRENCY, token=token)
    check = JudgeExecutor(JudgeSettings(url, deadline_s=3.0, token=token))
    (seen,) = check(["print(6 * 7)"])
    if not seen.ok or seen.text != "42":
        raise ConfigError(f"code-judge at {url} answers print(6 * 7) with {seen.text!r}")
    return JudgeExecutor(settings)
