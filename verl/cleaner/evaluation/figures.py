"""The figures of an evaluation: by data source, and over all problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cleaner.evaluation.answers import canonical
from cleaner.evaluation.estimators import Interval, bootstrap_mean, ks_up_to, majority, pass_at_k
from cleaner.evaluation.samples import Evaluation, Sample

OVERALL = "overall"


@dataclass(frozen=True)
class ToolUse:
    """How tools were used, and what it took. Shares are of samples or calls, tokens are means over samples.

    Attributes:
        used: share of samples with a call.
        calls: calls a sample that ran, in look-aheads too.
        first_failed, final_failed: share of failed calls at the first attempt, and of those in the final history.
        rollbacks: recovered turns a sample, by what became of the turn.
        turns: of the assistant, a sample. seconds: of wall time, a sample.
        generated_tokens: all that the model sampled. discarded_tokens: those of them that are not in the final history;
            kept_tokens: those that are. response_tokens: of the final response, observations included.
        endings: share of samples by ending.
    """

    used: float | None
    calls: float | None
    first_failed: float | None
    final_failed: float | None
    rollbacks: dict[str, float]
    turns: float | None
    generated_tokens: float | None
    kept_tokens: float | None
    discarded_tokens: float | None
    response_tokens: float | None
    seconds: float | None
    endings: dict[str, float]


@dataclass(frozen=True)
class Figures:
    """Of one data source, or of all of them.

    Attributes:
        problems, samples: that are scored. left_out: samples that are not, by reason.
        n: samples a problem, the fewest and the most.
        mean: mean@n, that is pass@1: over problems, of each one's share of right samples.
        pass_at: pass@k for k = 1, 2, 4, ... up to the fewest samples of a problem.
        majority: maj@n; None where no sample has an answer to vote with.
    """

    problems: int
    samples: int
    left_out: dict[str, int]
    n: tuple[int, int]
    mean: Interval | None
    pass_at: dict[int, float]
    majority: float | None
    tools: ToolUse

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)


def figures_of(evaluation: Evaluation, seed: int = 0) -> dict[str, Figures]:
    """Figures by data source, in alphabetical order, and `overall` last: there every problem counts the same."""
    sources = {name: list(problems.values()) for name, problems in sorted(evaluation.problems.items())}
    found = {name: _figures(groups, seed) for name, groups in sources.items()}
    return {**found, OVERALL: _figures([group for groups in sources.values() for group in groups], seed)}


def problem_means(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Data source -> problem -> share of right samples among the scored ones; problems without any are left out."""
    return {
        source: {
            label: sum(right) / len(right) for label, group in problems.items() if (right := _right(group))
        }
        for source, problems in evaluation.problems.items()
    }


def _right(group: Iterable[Sample]) -> list[int]:
    return [sample.acc for sample in group if sample.acc is not None]


def _figures(groups: Sequence[Sequence[Sample]], seed: int) -> Figures:
    samples = [sample for group in groups for sample in group]
    problems = [right for group in groups if (right := _right(group))]
    sizes = [len(right) for right in problems] or [0]
    left_out: dict[str, int] = {}
    for sample in samples:
        if sample.left_out is not None:
            left_out[sample.left_out] = left_out.get(sample.left_out, 0) + 1
    return Figures(
        problems=len(problems),
        samples=sum(sizes),
        left_out=left_out,
        n=(min(sizes), max(sizes)),
        mean=bootstrap_mean([sum(right) / len(right) for right in problems], seed),
        pass_at={
            k: sum(pass_at_k(len(right), sum(right), k) for right in problems) / len(problems)
            for k in ks_up_to(min(sizes))
        },
        majority=_majority(groups),
        tools=_tool_use(samples),
    )


def _majority(groups: Sequence[Sequence[Sample]]) -> float | None:
    if not any(sample.pred is not None for group in groups for sample in group):
        return None
    votes = [
        [
            (None if sample.pred is None else canonical(sample.pred), sample.acc)
            for sample in group
            if sample.acc is not None
        ]
        for group in groups
    ]
    means = [mean for problem in votes if (mean := majority(problem)) is not None]
    return sum(means) / len(means) if means else None


def _tool_use(samples: Sequence[Sample]) -> ToolUse:
    counted = [sample.saar for sample in samples if sample.saar]

    def failed(calls: str) -> float | None:
        total = sum(counts.get(calls, 0) for counts in counted)
        return 1 - sum(counts.get(f"{calls}_ok", 0) for counts in counted) / total if total else None

    endings = [sample.ending for sample in samples if sample.ending is not None]
    return ToolUse(
        used=_mean([sample.used_tool for sample in samples if sample.saar]),
        calls=_mean([counts.get("calls", 0) for counts in counted]),
        first_failed=failed("first_calls"),
        final_failed=failed("final_calls"),
        rollbacks={
            name: sum(counts.get(name, 0) for counts in counted) / len(counted)
            for name in ("shallow", "deep", "kept")
            if counted
        },
        turns=_mean([sample.turns for sample in samples]),
        generated_tokens=_mean([sample.generated_tokens for sample in samples]),
        kept_tokens=_mean([_kept_tokens(sample) for sample in samples]),
        discarded_tokens=_mean([sample.discarded_tokens for sample in samples]),
        response_tokens=_mean([sample.response_tokens for sample in samples]),
        seconds=_mean([sample.seconds for sample in samples]),
        endings={ending: endings.count(ending) / len(endings) for ending in sorted(set(endings))},
    )


def _kept_tokens(sample: Sample) -> int | None:
    generated, discarded = sample.generated_tokens, sample.discarded_tokens
    return None if generated is None or discarded is None else generated - discarded


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def lookahead_of(evaluation: Evaluation) -> bool | None:
    """Whether failing calls were rolled back in this evaluation; None where some were and some not."""
    kinds: set[bool] = {sample.lookahead for sample in evaluation.samples}
    return kinds.pop() if len(kinds) == 1 else None


def sources_of(named: Iterable[Iterable[str]]) -> list[str]:
    """Names of all data sources, in order, and `overall` last where there are several."""
    found = sorted({name for names in named for name in names if name != OVERALL})
    return found if len(found) == 1 else [*found, OVERALL]
