"""The look-ahead after a failing turn: what the model tries, and what becomes of the history."""

import asyncio
import math
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from verl.experimental.agent_loop.tool_agent_loop import AgentData
from verl.utils.profiler import simple_timer

from cleaner.branch import Attempt, BranchSampler, LoopParts, fork
from cleaner.fitting import Fitting
from cleaner.saar.outcome import INFRASTRUCTURE, ToolOutcome
from cleaner.saar.policy import Decision, Ending
from cleaner.saar.repair import AttemptRecord, Repair
from cleaner.saar.similarity import Similarity
from cleaner.saar.trajectory import Origin
from cleaner.sampled_turn import RepairedTurn, Turn
from cleaner.trajectory_session import TrajectorySession

T = TypeVar("T")


@dataclass
class KeptBranch:
    """A look-ahead that becomes the history, as it was sampled.

    Attributes:
        branch: the history, tools' messages of its last turn included, unless `full`.
        full: whether these messages would fill the response length: the trajectory ends here.
        answer: of the server to the last request behind it, None if that was the failing turn's own.
        attempts: indices of the attempts that it holds; `outcomes`: of their calls.
    """

    branch: AgentData
    full: bool
    answer: Any
    attempts: tuple[int, ...]
    outcomes: tuple[ToolOutcome, ...] = ()


class LookAhead:
    """Explores corrections of one failing turn. Use once."""

    def __init__(self, loop: LoopParts, session: TrajectorySession, main: AgentData, failed: Turn) -> None:
        if session.checkpoint is None:
            raise RuntimeError("look-ahead outside of a turn")
        self._loop = loop
        self._session = session
        self._policy = session.policy
        self._config = session.policy.config
        self._main = main
        self._failed = failed
        self._before = session.checkpoint
        self._failing = self._policy.failing(failed.outcomes)
        self._start = len(session.trajectory) - len(failed.ids)
        self._sampler = BranchSampler(loop)
        self._fitting = Fitting(loop, self._policy, failed, self._failing, loop.response_length - self._start)
        self._attempts: list[Attempt] = []
        self._similarities: dict[int, Similarity] = {}
        self._used = 0
        self._accepted: int | None = None
        self._weight: float | None = None
        self._repaired: RepairedTurn | None = None
        # The repaired turn where the history is not edited.
        self._aside: RepairedTurn | None = None
        self._kept: KeptBranch | None = None

    async def explore(self) -> tuple[Repair, RepairedTurn | KeptBranch | None]:
        """Sample corrections until one succeeds, K failed, or there is no room left.

        Returns:
            The record, and what takes the failing turn's place: a repaired turn, or the look-ahead itself; None: the
            failing turn stays.
        """
        begin = time.perf_counter()
        parallel = self._config.lookahead == "parallel"
        ending = await (self._side_by_side() if parallel else self._one_by_one())
        return self._record(ending, time.perf_counter() - begin), self._repaired or self._kept

    # -- one after the other ------------------------------------------------------------------------------------------

    async def _one_by_one(self) -> Ending | None:
        keep_all = self._config.on_exhausted == "keep_all"
        branch = fork(self._main)
        if not await self._sampler.observe(branch, self._failed):
            return Ending.ROOM
        if keep_all:
            self._kept = KeptBranch(branch, False, None, ())
        for number in range(self._config.max_retries):
            room = self._room(branch, self._used)
            if room <= 0:
                return Ending.ROOM
            if keep_all and not self._turn_allowed(branch, branch.assistant_turns + 1):
                return Ending.TURNS
            params = self._session.request_params(self._session.sampling_params, max_tokens=room)
            attempt = await self._timed("generate_sequences", self._sampler.sample(fork(branch), params))
            self._note(attempt)
            if not attempt.turn.calls:
                # An answer without a call leaves no tool message to go on from: the next attempt starts where this
                # one did, with another seed.
                if self._greedy:
                    return Ending.GREEDY
                continue
            await self._timed("tool_calls", self._run(attempt))
            if any(outcome.status == INFRASTRUCTURE for outcome in attempt.turn.outcomes):
                return Ending.INFRASTRUCTURE
            # In a sampled history a correction counts that could not be grafted.
            if self._policy.accepts(attempt.turn.outcomes) and (
                await self._accept(number, attempt) or not self._policy.edits
            ):
                return await self._settle(number, attempt)
            if number + 1 == self._config.max_retries and not keep_all:
                break
            if self._config.lookahead_context == "latest":
                attempt.branch = await self._sampler.extend(self._fork_before_turn(), attempt.turn)
            # The next attempt sees it; the branch with it may become the history.
            branch = attempt.branch
            full = not await self._sampler.observe(branch, attempt.turn)
            if self._kept is not None:
                self._kept = self._branch_with(branch, full, attempt.answer, (*self._kept.attempts, number))
            if full:
                return Ending.ROOM
        return Ending.ATTEMPTS

    async def _accept(self, number: int, attempt: Attempt) -> bool:
        ratio = await self._fitting.compare(attempt.turn)
        if ratio is None:
            return False
        repaired = await self._fitting.fit(attempt, ratio)
        if repaired is None:
            return False
        self._similarities[number] = ratio
        self._repaired, self._accepted, self._kept = repaired, number, None
        return True

    # -- side by side -------------------------------------------------------------------------------------------------

    async def _side_by_side(self) -> Ending | None:
        branch = fork(self._main)
        if not await self._sampler.observe(branch, self._failed):
            return Ending.ROOM
        count = 1 if self._greedy else self._config.max_retries
        if self._config.max_lookahead_tokens is not None:
            count = min(count, self._config.max_lookahead_tokens)
        room = self._room(branch, 0, among=count)
        if room <= 0:
            return Ending.ROOM
        params = [
            self._session.request_params(self._session.sampling_params, max_tokens=room) for _ in range(count)
        ]
        sampling = [self._sampler.sample(fork(branch), each) for each in params]
        for attempt in await self._timed("generate_sequences", _all(sampling)):
            self._note(attempt)
        called = [attempt for attempt in self._attempts if attempt.turn.calls]
        if not called:
            return Ending.GREEDY if self._greedy else Ending.ATTEMPTS
        await self._timed("tool_calls", _all([self._run(attempt) for attempt in called]))
        for number, attempt in enumerate(self._attempts):
            if self._policy.accepts(attempt.turn.outcomes):
                ratio = await self._fitting.compare(attempt.turn, exactly=True)
                if ratio is not None:
                    self._similarities[number] = ratio
        best_first = sorted(
            self._similarities, key=lambda number: (-self._similarities[number].value, number)
        )
        for number in best_first:
            attempt = self._attempts[number]
            repaired = await self._fitting.fit(attempt, self._similarities[number])
            if repaired is not None:
                self._repaired, self._accepted = repaired, number
                return await self._settle(number, attempt)
        faults = (outcome.status == INFRASTRUCTURE for attempt in called for outcome in attempt.turn.outcomes)
        return Ending.INFRASTRUCTURE if any(faults) else Ending.ATTEMPTS

    # -- graft, or keep the look-ahead --------------------------------------------------------------------------------

    async def _settle(self, number: int, attempt: Attempt) -> Ending | None:
        """Keep the look-ahead where the history is not edited or the graft is too unlikely in the clean context."""
        if self._policy.edits:
            if not self._policy.gated or self._repaired is None:
                return None
            self._weight = await self._graft_weight(self._repaired)
            if self._policy.lets_through(self._weight):
                return None
        else:
            self._aside, self._accepted = self._repaired, number
        self._repaired = None
        if not self._turn_allowed(attempt.branch, attempt.branch.assistant_turns):
            self._accepted = None
            return Ending.TURNS
        earlier = [] if self._config.lookahead == "parallel" else range(number)
        held = [i for i in earlier if self._attempts[i].turn.calls]
        full = not await self._sampler.observe(attempt.branch, attempt.turn)
        self._kept = self._branch_with(attempt.branch, full, attempt.answer, (*held, number))
        return None

    def _branch_with(
        self, branch: AgentData, full: bool, answer: Any, attempts: tuple[int, ...]
    ) -> KeptBranch:
        outcomes = (outcome for number in attempts for outcome in self._attempts[number].turn.outcomes)
        return KeptBranch(branch, full, answer, attempts, tuple(outcomes))

    async def _graft_weight(self, repaired: RepairedTurn) -> float:
        """Geometric mean over the grafted tokens of w = p(token | clean context) / p(token | its sampling context).

        verl's servers score given tokens by `prompt_logprobs`: entry i is of token i + 1.
        """
        context, ids = self._before.prompt_ids, repaired.graft.ids
        params = {**self._session.sampling_params, "max_tokens": 1, "prompt_logprobs": 0}
        with simple_timer("generate_sequences", self._main.metrics):
            answer = await self._sampler.request(fork(self._main), context + ids, params)
        scores = answer.extra_fields.get("prompt_logprobs")
        if scores is None or any(piece.logprobs is None for piece in repaired.graft.pieces):
            raise ValueError(
                "cleaner.saar.graft_credit=gate: the rollout server gives no log-probabilities of given tokens "
                "(prompt_logprobs). Use the hf_server, vLLM or SGLang, with rollout.calculate_log_probs=true."
            )
        ratios = []
        position = len(context)
        for piece in repaired.graft.pieces:
            if piece.origin == Origin.GRAFTED and piece.logprobs is not None:
                clean = (float(scores[position + i - 1][0]) for i in range(len(piece.ids)))
                ratios += [new - old for new, old in zip(clean, piece.logprobs, strict=True)]
            position += len(piece.ids)
        return math.exp(sum(ratios) / len(ratios)) if ratios else 1.0

    # -- parts --------------------------------------------------------------------------------------------------------

    @property
    def _greedy(self) -> bool:
        return bool(self._session.sampling_params.get("temperature") == 0)

    async def _timed(self, name: str, work: Awaitable[T]) -> T:
        with simple_timer(name, self._main.metrics):
            return await work

    def _note(self, attempt: Attempt) -> None:
        self._attempts.append(attempt)
        self._used += len(attempt.turn.ids)
        cached = attempt.answer.extra_fields.get("num_cached_tokens")
        self._session.statistics.count_lookahead_prompt(attempt.prompt_tokens, cached)

    async def _run(self, attempt: Attempt) -> None:
        attempt.turn.results = await self._loop.run_calls(
            attempt.turn.calls, attempt.branch, {}, lookahead=True
        )

    def _room(self, branch: AgentData, used: int, among: int = 1) -> int:
        """Tokens that the next attempt may take, or each of `among` attempts."""
        room = self._loop.response_length - len(branch.response_mask)
        limit = self._config.max_lookahead_tokens
        return room if limit is None else min(room, (limit - used) // among)

    def _turn_allowed(self, branch: AgentData, number: int) -> bool:
        """Whether a turn with calls, the trajectory's `number`-th, may stand in the history by the limits on turns.

        Upstream's rule: the last allowed turn ends the trajectory, its calls are not run.
        """
        assistant, user = self._loop.max_assistant_turns, self._loop.max_user_turns
        return not ((assistant and number >= assistant) or (user and branch.user_turns >= user))

    def _fork_before_turn(self) -> AgentData:
        branch = fork(self._main)
        branch.prompt_ids, branch.response_mask = self._before.prompt_ids, self._before.response_mask
        branch.response_logprobs = self._before.response_logprobs
        del branch.messages[self._before.messages :]
        return branch

    # -- the record ---------------------------------------------------------------------------------------------------

    def _record(self, ending: Ending | None, seconds: float) -> Repair:
        turns = [attempt.turn for attempt in self._attempts]
        records = [AttemptRecord(turn.sampled(range(len(turn.calls)))) for turn in turns]
        for number, ratio in self._similarities.items():
            records[number] = replace(records[number], similarity=ratio.value)
        accepted = None if self._accepted is None else self._similarities.get(self._accepted)
        graft = None if self._repaired is None else self._repaired.graft
        after = self._failed.ids if graft is None else graft.ids
        in_history = len(after) + sum(len(turns[i].ids) for i in (self._kept.attempts if self._kept else ()))
        decision = Decision.EXHAUSTED if ending is not None else Decision.KEPT
        return Repair(
            turn=self._session.turn,
            start=self._start,
            decision=decision if graft is None else graft.depth,
            similarity=None if accepted is None else accepted.value,
            similarity_exact=accepted is None or accepted.exact,
            weight=self._weight,
            accepted=self._accepted,
            ending=ending,
            failed=self._failed.sampled(self._failing),
            attempts=tuple(records),
            after=tuple(after),
            graft_call_start=None if graft is None else graft.call_start,
            aside=None if self._aside is None else self._aside.graft,
            discarded_tokens=len(self._failed.ids) + self._used - in_history,
            excluded_tokens=sum(stop - start for start, stop in self.excluded()),
            removed_tokens=self._removed_tokens(len(after)),
            lookahead_tokens=self._used,
            seconds=seconds,
        )

    def excluded(self) -> list[tuple[int, int]]:
        """Token ranges of the failing turn that stay in the history but are not trained (`on_exhausted: mask`)."""
        if self._config.on_exhausted != "mask" or self._accepted is not None:
            return []
        spans = [self._failed.calls[index].span for index in self._failing]
        if any(span is None for span in spans):
            return [(0, len(self._failed.ids))]
        return sorted({(span.start, span.stop) for span in spans if span is not None})

    def _removed_tokens(self, after: int) -> int:
        """How much longer the history would be with the failing turn and the look-ahead left in it."""
        if self._accepted is None or self._repaired is None:
            return 0
        return len(self._attempts[self._accepted].branch.response_mask) - self._start - after


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """All results in order; where something fails, the first error, after everything has ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
