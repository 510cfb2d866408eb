"""The results as Markdown: one section a task, every arm a row, every run accounted for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cleaner.compare.curves import MEASURES
from cleaner.compare.estimates import Ratio
from cleaner.compare.plan import BASELINE, Plan
from cleaner.compare.results import CROSSINGS, LAST, ArmFigures, Results
from cleaner.evaluation.estimators import Interval

_NONE = "–"
_FEW_SEEDS = 8


def results_page(
    results: Results, command: str, starts: Sequence[dict[str, str]], explanation: str = "../comparison.md"
) -> str:
    """The page `results.md`; `command` repeats the runs, `starts` is the store's account, `explanation` a link."""
    plan = results.plan
    parts = [
        "# Comparison of strategies: results",
        "",
        f"Written by `bash recipe/cleaner/compare.sh`; [how it is computed]({explanation}). Every run generates "
        f"{plan.runs[0].budget:,} tokens in training, discarded ones and look-aheads included, and is validated "
        f"without rollback at the start and {plan.runs[0].validations} times on the way. A final value is the mean of "
        f"the last {LAST} validations. Differences are to the baseline with the same seed: mean, and 95 % bootstrap "
        f"interval over seeds; bold where it excludes no difference and there are at least {_FEW_SEEDS} seeds.",
        "",
        *_account(results, starts),
        "",
        "To repeat it:",
        "",
        "```bash",
        command,
        "```",
    ]
    for task in plan.tasks:
        figures = [each for each in results.figures if each.task == task.name]
        parts += ["", f"## {task.name}: {task.about}", ""]
        parts += _finals(plan, figures)
        parts += [
            "",
            "Tokens to the baseline's final value, as a share of those that the baseline needs:",
            "",
        ]
        parts += _ratios(figures)
        parts += ["", "Differences to the baseline in the mean over the run, and what a run cost:", ""]
        parts += _means(figures)
    return "\n".join([*parts, ""])


def _account(results: Results, starts: Sequence[dict[str, str]]) -> list[str]:
    states = [results.status[run.name] for run in results.plan.runs]
    counts = {state: states.count(state) for state in ("finished", "failed", "interrupted", "missing")}
    started = sum(entry.get("event") == "started" for entry in starts)
    seeds = len(results.plan.seeds)
    lines = [
        f"Of {len(states)} planned runs {counts['finished']} finished, {counts['failed']} failed, "
        f"{counts['interrupted']} were interrupted and {counts['missing']} were not started. {started} starts were "
        "made in all (`starts.csv`)."
    ]
    if seeds < _FEW_SEEDS:
        lines += ["", f"**{seeds} seeds only**: fewer than {_FEW_SEEDS} settle nothing."]
    return lines


def _finals(plan: Plan, figures: Sequence[ArmFigures]) -> list[str]:
    about = {arm.name: arm.about for arm in plan.arms}
    titles = ["arm", "seeds", *(measure.title for measure in MEASURES)]
    rows = []
    for each in figures:
        cells = [f"`{each.arm}`: {about[each.arm]}", _seeds(each)]
        for measure in MEASURES:
            value = each.final.get(measure.name)
            if each.arm == BASELINE:
                start = each.start.get(measure.name)
                cells.append(f"{_plain(start)} → {_plain(value)}")
            else:
                cells.append(difference(each.final_difference.get(measure.name), len(each.seeds)))
        rows.append(cells)
    return table(titles, rows)


def _ratios(figures: Sequence[ArmFigures]) -> list[str]:
    titles = {measure.name: measure.title for measure in MEASURES}
    rows = [
        [f"`{each.arm}`", *(_ratio(each.ratios.get(name)) for name in CROSSINGS)]
        for each in figures
        if each.arm != BASELINE
    ]
    return table(["arm", *(titles[name] for name in CROSSINGS)], rows)


def _means(figures: Sequence[ArmFigures]) -> list[str]:
    titles = [
        "arm",
        *(measure.title for measure in MEASURES),
        "steps",
        "trained / generated tokens",
        "seconds",
    ]
    rows = []
    for each in figures:
        cells = [
            f"`{each.arm}`",
            *(
                _plain(each.mean.get(m.name))
                if each.arm == BASELINE
                else difference(each.mean_difference.get(m.name), len(each.seeds))
                for m in MEASURES
            ),
        ]
        if each.seeds:
            cells += [
                f"{each.steps:.1f}",
                f"{each.trained_tokens:,.0f} / {each.tokens:,.0f}",
                f"{each.seconds:.0f}",
            ]
        else:
            cells += [_NONE] * 3
        rows.append(cells)
    return table(titles, rows)


def _seeds(each: ArmFigures) -> str:
    bad = [
        f"{number} {word}" for word in ("failed", "interrupted", "missing") if (number := getattr(each, word))
    ]
    return ", ".join([str(len(each.seeds)), *bad])


def _plain(interval: Interval | None) -> str:
    return _NONE if interval is None else f"{interval.mean:.3f}"


def difference(interval: Interval | None, seeds: int) -> str:
    """Mean and interval, bold where it excludes 0 and there are seeds enough to believe it."""
    many = seeds >= _FEW_SEEDS
    if interval is None:
        return _NONE
    if interval.low is None or interval.high is None:
        return f"{interval.mean:+.3f}"
    text = f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
    return f"**{text}**" if many and (interval.low > 0 or interval.high < 0) else text


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None or ratio.ratio is None:
        return _NONE
    text = _times(ratio.ratio)
    if ratio.low is None or ratio.high is None:
        return text
    text = f"{text} [{_times(ratio.low)}, {_times(ratio.high)}]"
    many = ratio.seeds >= _FEW_SEEDS
    return f"**{text}**" if many and (ratio.high < 1 or ratio.low > 1) else text


def _times(value: float) -> str:
    return "not reached" if math.isinf(value) else f"{value:.2f}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
