"""From a correction that succeeded to the turn that replaces the failing one."""

from collections.abc import Sequence

from cleaner.branch import Attempt, LoopParts
from cleaner.saar.config import SaarConfig
from cleaner.saar.graft import Graft, counterparts, grafts
from cleaner.saar.policy import TurnPolicy
from cleaner.saar.similarity import Similarity, similarity
from cleaner.sampled_turn import RepairedTurn, Turn
from cleaner.turn_calls import TurnCall

# Texts up to this size together are compared on the event loop; comparing takes at most 5 ms, whatever they are.
_INLINE_CHARS = 400


class Fitting:
    """Compares corrections with one failing turn, and grafts them into it.

    Args:
        failed: the failing turn. `failing`: indices of its calls that are to be replaced.
        room: tokens that the repaired turn may have; one less than fits, so that the model can go on.
    """

    def __init__(
        self, loop: LoopParts, policy: TurnPolicy, failed: Turn, failing: Sequence[int], room: int
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._config: SaarConfig = policy.config
        self._failed = failed
        self._failing = failing
        self._room = room

    async def compare(self, attempt: Turn, *, exactly: bool = False) -> Similarity | None:
        """Similarity of the failing calls to those that would replace them; None if they do not cover the failing ones.

        Args:
            exactly: the value itself is needed, not only on which side of gamma it lies.
        """
        sources = self._sources(attempt)
        if sources is None:
            return None
        failed = [self._failed.calls[index].call.arguments for index in self._failing]
        accepted = [attempt.calls[index].call.arguments for origin, index in sources if origin == "attempt"]
        gamma = 0.0 if exactly else self._config.gamma
        metric = self._config.metric_for(self._failed.calls[self._failing[0]].call.name)
        if sum(map(len, failed)) + sum(map(len, accepted)) <= _INLINE_CHARS:
            return similarity(failed, accepted, gamma, metric)
        return await self._loop.loop.run_in_executor(None, similarity, failed, accepted, gamma, metric)

    async def fit(self, attempt: Attempt, ratio: Similarity) -> RepairedTurn | None:
        """The repaired turn; None if none of the possible grafts parses to the calls that it should hold, or fits."""
        turn = attempt.turn
        wanted = self._policy.depth(ratio.value)
        for graft in grafts(self._failed.tokens, self._failing, turn.tokens, wanted):
            origins = {"turn": self._failed, "attempt": turn}
            calls = [origins[origin].calls[index] for origin, index in graft.sources]
            content = await self._content_if_sound(graft, calls, attempt)
            if content is None or len(graft.ids) >= self._room:
                continue
            results = [origins[origin].results[index] for origin, index in graft.sources]
            return RepairedTurn(
                graft, content, calls, results, attempt.branch.extra_fields, attempt.answer.extra_fields
            )
        return None

    def _sources(self, attempt: Turn) -> tuple[tuple[str, int], ...] | None:
        return counterparts(len(self._failed.calls), self._failing, len(attempt.calls))

    async def _content_if_sound(
        self, graft: Graft, calls: Sequence[TurnCall], attempt: Attempt
    ) -> str | None:
        """The repaired turn's text beside its calls; None if the turn does not parse to exactly these calls."""
        if graft.ids == attempt.turn.ids:
            return attempt.turn.content
        content, parsed = await self._loop.read_turn(graft.ids, attempt.branch)
        same = [(c.call.name, c.call.arguments, c.problem) for c in parsed] == [
            (c.call.name, c.call.arguments, c.problem) for c in calls
        ]
        return content if same else None
