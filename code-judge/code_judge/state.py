"""What a service says of itself: whether it is there, and whether it has workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from code_judge.errors import JudgeUnavailable
from code_judge.patience import Clock
from code_judge.transport import Broken, Transport

ASK_S = 10.0
_POLL_S = 0.1


async def ping(transport: Transport, addresses: Sequence[str], timeout_s: float) -> None:
    """Return if an address answers as a judge. Raises JudgeUnavailable."""
    address, answer = await _get(transport, addresses, "/ping", timeout_s)
    if answer != "pong":
        raise JudgeUnavailable(f"{address} answers /ping with {answer!r}: is it a code-judge?")


async def status(transport: Transport, addresses: Sequence[str], timeout_s: float) -> dict[str, Any]:
    """The status of the first address that answers. Raises JudgeUnavailable."""
    address, answer = await _get(transport, addresses, "/status", timeout_s)
    if not isinstance(answer, dict):
        raise JudgeUnavailable(f"{address} answers /status with {answer!r}: is it a code-judge?")
    return answer


async def wait_until_ready(
    transport: Transport, addresses: Sequence[str], deadline_s: float
) -> dict[str, Any]:
    """Wait until an address has live workers; returns its status. Raises JudgeUnavailable at the deadline."""
    clock = Clock(deadline_s)
    while True:
        problems = []
        for address in addresses:
            try:
                answer = await status(transport, [address], max(0.05, min(ASK_S, clock.left())))
                if answer.get("num_workers"):
                    return answer
                problems.append(f"{address} answers, but has no live workers")
            except JudgeUnavailable as error:
                problems.append(str(error))
        if clock.left() <= _POLL_S:
            raise JudgeUnavailable(f"not ready within {deadline_s:g} s: {'; '.join(problems)}")
        await asyncio.sleep(_POLL_S)


async def _get(
    transport: Transport, addresses: Sequence[str], path: str, timeout_s: float
) -> tuple[str, Any]:
    """The first address that answers 200 with JSON, and its answer."""
    clock = Clock(timeout_s)
    problems: list[str] = []
    for address in addresses:
        # A dead address leaves time for the others.
        part = max(0.01, clock.left()) / (len(addresses) - len(problems))
        try:
            reply = await transport.send("GET", address + path, None, part)
        except Broken as error:
            problems.append(f"{address}: {error}")
            continue
        if reply.status == 200:
            with contextlib.suppress(ValueError, RecursionError):
                return address, json.loads(reply.content)
        problems.append(f"{address}: HTTP {reply.status}: {reply.content[:100]!r}")
    raise JudgeUnavailable("; ".join(problems))
