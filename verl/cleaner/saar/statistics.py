"""Counts of one trajectory, and the metrics of many: what failing calls and their repair cost."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cleaner.saar.outcome import INFRASTRUCTURE, ToolOutcome
from cleaner.saar.policy import Decision
from cleaner.saar.repair import Repair

_HISTOGRAM_BINS = 10


@dataclass
class TrajectoryStatistics:
    """Counts of one trajectory. All are sums, so that those of many trajectories add up.

    Attributes:
        calls, calls_ok: calls that ran, in look-aheads too, and those of them that succeeded. A call that could not
            be parsed counts as one that failed. Infrastructure faults count in `infrastructure` only.
        first_calls, first_calls_ok: the same without look-aheads and without calls of a turn whose predecessor
            failed: what the policy achieves at its first attempt, with rollback and without it.
        opening_calls, opening_calls_ok: 1 where a call was made, and where the first of all succeeded.
        final_calls, final_calls_ok: calls that stand in the final history.
        infrastructure: calls that the tool's service failed. Not 0: the trajectory says nothing about the policy.
        failures: failed calls by status, and by exception class where it is known.
        triggered, recovered, exhausted: rolled-back turns by the label of the first failing call.
        endings: exhausted turns by reason.
        tolerated: failing turns that were left to the model to correct in the open.
        shallow, deep: accepted repairs that were put in place. kept: accepted ones that were not, because the graft was
            too unlikely in the clean context or the history is not edited.
        similarities: of accepted repairs.
        tries: how often the whole trajectory was sampled; the counts are then of all tries.
        sampled_tokens: tokens that the model sampled in the main history, failing turns included.
        lookahead_tokens: tokens that corrections, and tries that were not kept, sampled. Both together are all
            generated tokens.
        discarded_tokens: generated tokens that are not in the final history.
        excluded_tokens: sampled tokens that are in the final history but not trained.
        lookahead_seconds: wall time of look-aheads, tools included.
        lookahead_prompt_tokens, lookahead_cached_tokens: tokens of the look-aheads' prompts, and those of them whose
            keys and values the server had in its prefix cache; of the requests for which it says so.
        seconds: wall time of the trajectory, all of it.
        purified_length, sampled_length: tokens of the final response; of the response if the failing turns and their
            look-aheads had stayed in it.
    """

    calls: int = 0
    calls_ok: int = 0
    first_calls: int = 0
    first_calls_ok: int = 0
    opening_calls: int = 0
    opening_calls_ok: int = 0
    final_calls: int = 0
    final_calls_ok: int = 0
    infrastructure: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    triggered: Counter[str] = field(default_factory=Counter)
    recovered: Counter[str] = field(default_factory=Counter)
    exhausted: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    tolerated: int = 0
    shallow: int = 0
    deep: int = 0
    kept: int = 0
    similarities: list[float] = field(default_factory=list)
    sampled_tokens: int = 0
    lookahead_tokens: int = 0
    discarded_tokens: int = 0
    excluded_tokens: int = 0
    lookahead_seconds: float = 0.0
    lookahead_prompt_tokens: int = 0
    lookahead_cached_tokens: int = 0
    seconds: float = 0.0
    purified_length: int = 0
    sampled_length: int = 0
    tries: int = 1

    def __post_init__(self) -> None:
        # Whether this turn, and the one before it in the final history, has a failing call.
        self._failed = False
        self._is_retry = False
        # Calls of this turn in the main history, and those of them that succeeded.
        self._turn_calls = self._turn_ok = 0

    def begin_turn(self) -> None:
        """Call before the calls of the next turn of the main history are counted."""
        self._is_retry, self._failed = self._failed, False
        self._turn_calls = self._turn_ok = 0

    def count_call(self, outcome: ToolOutcome, *, lookahead: bool) -> None:
        """Count one executed (or unparsable) call."""
        if outcome.status == INFRASTRUCTURE:
            self.infrastructure += 1
            return
        if not self.opening_calls:
            self.opening_calls, self.opening_calls_ok = 1, int(outcome.ok)
        self.calls += 1
        self.calls_ok += outcome.ok
        if not lookahead:
            self._failed |= not outcome.ok
            self._turn_calls += 1
            self._turn_ok += outcome.ok
            self.final_calls += 1
            self.final_calls_ok += outcome.ok
            self.first_calls += not self._is_retry
            self.first_calls_ok += not self._is_retry and outcome.ok
        if not outcome.ok:
            self.failures.update({outcome.status, outcome.label})

    def count_lookahead_prompt(self, tokens: int, cached: int | None) -> None:
        """Count the prompt of one request of a look-ahead; `cached` is None where the server does not say."""
        if cached is not None:
            self.lookahead_prompt_tokens += tokens
            self.lookahead_cached_tokens += cached

    def count_repair(self, repair: Repair) -> None:
        """Count one rolled-back turn."""
        label = repair.failed.outcome.label if repair.failed.outcome else "unknown"
        self.triggered[label] += 1
        self.lookahead_tokens += repair.lookahead_tokens
        self.lookahead_seconds += repair.seconds
        self.discarded_tokens += repair.discarded_tokens
        self.excluded_tokens += repair.excluded_tokens
        if repair.decision == Decision.EXHAUSTED:
            self.exhausted[label] += 1
            self.endings[str(repair.ending)] += 1
            return
        self.recovered[label] += 1
        self._failed = False
        self.sampled_length += repair.removed_tokens
        self.shallow += repair.decision == Decision.SHALLOW
        self.deep += repair.decision == Decision.DEEP
        self.kept += repair.decision == Decision.KEPT
        if repair.similarity is not None:
            self.similarities.append(repair.similarity)

    def replace_turn_calls(self, successes: int) -> None:
        """Say that the present turn was repaired: `successes` calls, all of which succeeded, stand in its place."""
        self.final_calls += successes - self._turn_calls
        self.final_calls_ok += successes - self._turn_ok
        self._turn_calls = self._turn_ok = successes

    def keep_lookahead_calls(self, outcomes: Iterable[ToolOutcome]) -> None:
        """Say that these calls of a look-ahead stay in the history behind the present turn's."""
        for outcome in outcomes:
            self.final_calls += outcome.status != INFRASTRUCTURE
            self.final_calls_ok += outcome.ok

    def absorb(self, other: "TrajectoryStatistics") -> None:
        """Add a try that was not kept: what it did happened, and all that it generated is discarded.

        Not its infrastructure faults, which would mark a trajectory that met none.
        """
        generated = other.sampled_tokens + other.lookahead_tokens
        for name in (
            "calls", "calls_ok", "opening_calls", "opening_calls_ok", "failures", "triggered", "recovered",
            "exhausted", "endings", "tolerated", "shallow", "deep", "kept", "similarities", "lookahead_seconds",
            "tries", "lookahead_prompt_tokens", "lookahead_cached_tokens", "seconds",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lookahead_tokens += generated
        self.discarded_tokens += generated

    def finish(self, length: int) -> None:
        """Close the counts of a trajectory whose response has `length` tokens."""
        self.purified_length = length
        self.sampled_length += length

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: dict(value)
            if isinstance(value, Counter)
            else list(value)
            if isinstance(value, list)
            else value
            for name, value in values.items()
        }


def aggregate(
    trajectories: Iterable[Mapping[str, Any]], unselected: Iterable[Mapping[str, Any]] = ()
) -> dict[str, float]:
    """Metrics of a step from the `to_dict` of its trajectories; empty for no trajectory.

    Counts are sums over the step, rates are ratios of sums. A rate whose denominator is 0 is left out.

    Args:
        unselected: of trajectories that a strategy sampled but did not select: all their tokens count as generated and
            discarded, nothing else of them counts.
    """
    rows = list(trajectories)
    if not rows:
        return {}

    def total(key: str) -> float:
        return float(sum(row[key] for row in rows))

    def counts(key: str) -> Counter[str]:
        return sum((Counter(row[key]) for row in rows), Counter())

    triggered, recovered, exhausted = counts("triggered"), counts("recovered"), counts("exhausted")
    unused = float(sum(row["sampled_tokens"] + row["lookahead_tokens"] for row in unselected))
    generated = total("sampled_tokens") + total("lookahead_tokens") + unused
    discarded = total("discarded_tokens") + unused
    metrics = {
        "tool_calls/total": total("calls"),
        "rollback/triggered": float(triggered.total()),
        "rollback/recovered": float(recovered.total()),
        "rollback/exhausted": float(exhausted.total()),
        "rollback/shallow": total("shallow"),
        "rollback/deep": total("deep"),
        "rollback/kept": total("kept"),
        "rollback/tolerated": total("tolerated"),
        "rollback/excluded_tokens": total("excluded_tokens"),
        "rollback/discarded_tokens": discarded,
        "rollback/lookahead_tokens": total("lookahead_tokens"),
        "rollback/lookahead_seconds": total("lookahead_seconds"),
        "rollback/generated_tokens": generated,
        "rollback/purified_length": total("purified_length") / len(rows),
        "rollback/sampled_length": total("sampled_length") / len(rows),
        "rollback/tries": total("tries") / len(rows),
        "tool_calls/infrastructure_faults": total("infrastructure"),
        "tool_calls/infrastructure_trajectories": float(sum(bool(row["infrastructure"]) for row in rows)),
    }
    _add_ratio(metrics, "tool_calls/success_rate", total("calls_ok"), total("calls"))
    _add_ratio(
        metrics, "tool_calls/first_attempt_success_rate", total("first_calls_ok"), total("first_calls")
    )
    _add_ratio(
        metrics, "tool_calls/first_call_success_rate", total("opening_calls_ok"), total("opening_calls")
    )
    _add_ratio(metrics, "rollback/lookahead_seconds_share", total("lookahead_seconds"), total("seconds"))
    # Under perf/, with what else depends on how requests met: equal seeds do not make it equal.
    _add_ratio(
        metrics,
        "perf/lookahead_cached_share",
        total("lookahead_cached_tokens"),
        total("lookahead_prompt_tokens"),
    )
    _add_ratio(metrics, "rollback/recovery_rate", recovered.total(), triggered.total())
    _add_ratio(metrics, "rollback/discarded_token_share", discarded, generated)
    _add_ratio(metrics, "rollback/lookahead_token_share", total("lookahead_tokens"), generated)
    for label, count in sorted(counts("failures").items()):
        metrics[f"tool_calls/failure/{label}"] = float(count)
    for label in sorted(triggered):
        metrics[f"rollback/triggered/{label}"] = float(triggered[label])
        metrics[f"rollback/recovered/{label}"] = float(recovered[label])
        metrics[f"rollback/exhausted/{label}"] = float(exhausted[label])
        _add_ratio(metrics, f"rollback/recovery_rate/{label}", recovered[label], triggered[label])
    for reason, count in sorted(counts("endings").items()):
        metrics[f"rollback/exhausted_by/{reason}"] = float(count)
    metrics.update(_similarity_metrics([value for row in rows for value in row["similarities"]]))
    return metrics


def _add_ratio(metrics: dict[str, float], name: str, numerator: float, denominator: float) -> None:
    if denominator:
        metrics[name] = float(numerator) / float(denominator)


def _similarity_metrics(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    bins = Counter(min(int(value * _HISTOGRAM_BINS), _HISTOGRAM_BINS - 1) for value in values)
    histogram = {
        f"rollback/similarity/from_{index / _HISTOGRAM_BINS:.1f}": float(bins[index])
        for index in range(_HISTOGRAM_BINS)
    }
    return {"rollback/similarity/mean": sum(values) / len(values), **histogram}
