"""One call for many submissions: as batches, a bounded number at a time, the outcomes in order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from code_judge.batches import cut
from code_judge.delivery import Delivery, Route
from code_judge.errors import BadSubmission, JudgeError
from code_judge.patience import Clock
from code_judge.submission import Item, Result, check, pack

Progress = Callable[[int, int], None]
"""Called with the number of submissions that are done and of all, after each batch."""


class Many:
    """A call of `run_many` or `judge_many`; the parameters are theirs.

    Raises:
        BadSubmission: one of `submissions` is none, and exceptions are not to be returned. Nothing is sent
            then.
    """

    def __init__(
        self,
        delivery: Delivery,
        route: Route,
        submissions: Sequence[Mapping[str, Any]],
        deadline_s: float,
        return_exceptions: bool,
        progress: Progress | None,
    ) -> None:
        if not return_exceptions:
            for index, submission in enumerate(submissions):
                check(index, submission)
        self._delivery = delivery
        self._route = route
        self._submissions = submissions
        self._deadline_s = deadline_s
        self._return_exceptions = return_exceptions
        self._progress = progress
        self._outcomes: list[Result | JudgeError | None] = [None] * len(submissions)
        self._done = 0

    async def outcomes(self) -> list[Any]:
        """Every submission's outcome at its place; the first error is raised unless they are to be
        returned.
        """
        settings = self._delivery.settings
        size = settings.programs_per_batch
        # Made ready as they are needed: there may be millions.
        batches = cut(self._packed(), size, settings.batch_bytes)
        room = settings.max_concurrency * len(settings.addresses)
        # One more than fit, so that a next request is ready when one is answered.
        lanes = min(math.ceil(room / size) + 1, len(self._submissions))
        await _all([asyncio.create_task(self._lane(batches)) for _ in range(lanes)])
        return self._outcomes

    async def _lane(self, batches: Iterator[list[Item]]) -> None:
        for batch in batches:
            self._settle(await self._delivery.deliver(batch, self._route, Clock(self._deadline_s)))

    def _packed(self) -> Iterator[Item]:
        for index, submission in enumerate(self._submissions):
            try:
                yield pack(index, submission)
            except BadSubmission as error:
                self._settle({index: error})

    def _settle(self, outcomes: Mapping[int, Result | JudgeError]) -> None:
        for index, outcome in outcomes.items():
            if isinstance(outcome, JudgeError) and not self._return_exceptions:
                raise outcome
            self._outcomes[index] = outcome
        self._done += len(outcomes)
        if self._progress is not None:
            self._progress(self._done, len(self._submissions))


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all; the first error ends the others, and is raised when they have ended."""
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
