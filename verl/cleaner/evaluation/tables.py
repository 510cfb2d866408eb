"""An evaluation, or several side by side, as text, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cleaner.evaluation.comparison import Comparison, compare
from cleaner.evaluation.estimators import CONFIDENCE, RESAMPLES, Interval
from cleaner.evaluation.figures import Figures, figures_of, lookahead_of, sources_of
from cleaner.evaluation.sample_facts import ENDINGS, LENGTH
from cleaner.evaluation.samples import Evaluation
from cleaner.report.visible_text import visible

SCHEMA = 1
_NONE = "–"


def as_text(runs: Sequence[Evaluation], seed: int = 0) -> str:
    """The tables of `cleaner eval-report`, 95 % intervals in brackets, shares in percent."""
    figures = [figures_of(run, seed) for run in runs]
    parts = [_heading(run, of) for run, of in zip(runs, figures, strict=True)]
    parts.append(_table("accuracy", *_accuracy_table(runs, figures)))
    parts.append(_table("tools and length, means over samples", *_tool_table(runs, figures)))
    for run in runs[1:]:
        parts.append(_comparison_table(run, runs[0], seed))
    parts.append(
        f"mean@n is pass@1. Intervals: {CONFIDENCE:.0%}, percentile bootstrap over problems, "
        f"{RESAMPLES} resamples, seed {seed}."
    )
    return "\n\n".join(parts)


def as_json(runs: Sequence[Evaluation], seed: int = 0) -> str:
    """Everything that the tables show, and all endings; shares between 0 and 1."""
    return json.dumps(
        {
            "schema": SCHEMA,
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": seed, "unit": "problem"},
            "runs": [
                {
                    "name": run.name,
                    "file": str(run.path),
                    "step": run.step,
                    "lookahead": lookahead_of(run),
                    "warnings": list(run.warnings),
                    "figures": {name: of.to_dict() for name, of in figures_of(run, seed).items()},
                }
                for run in runs
            ],
            "differences": [
                {
                    "run": run.name,
                    "to": runs[0].name,
                    "by_source": {name: of.to_dict() for name, of in compare(run, runs[0], seed).items()},
                }
                for run in runs[1:]
            ],
        },
        indent=2,
        ensure_ascii=False,
    )


def as_csv(runs: Sequence[Evaluation], seed: int = 0) -> str:
    """One line a run and data source; shares between 0 and 1, empty where there is no value."""
    lines: list[dict[str, Any]] = []
    for run in runs:
        differences = compare(run, runs[0], seed) if run is not runs[0] else {}
        for source, of in figures_of(run, seed).items():
            difference = differences[source].difference if source in differences else None
            lines.append(
                {
                    "run": run.name,
                    "step": run.step,
                    "lookahead": lookahead_of(run),
                    "data_source": source,
                    **_flat(of),
                    **_ends("difference_to_first", difference),
                }
            )
    names = list(dict.fromkeys(name for line in lines for name in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(of: Figures) -> dict[str, Any]:
    tools = of.tools
    return {
        "problems": of.problems,
        "samples": of.samples,
        "left_out": sum(of.left_out.values()),
        "n_min": of.n[0],
        "n_max": of.n[1],
        **_ends("mean", of.mean),
        **{f"pass@{k}": value for k, value in of.pass_at.items()},
        "maj@n": of.majority,
        "tool_used": tools.used,
        "tool_calls": tools.calls,
        "first_attempt_failed": tools.first_failed,
        "final_failed": tools.final_failed,
        **tools.rollbacks,
        "turns": tools.turns,
        "generated_tokens": tools.generated_tokens,
        "kept_tokens": tools.kept_tokens,
        "discarded_tokens": tools.discarded_tokens,
        "response_tokens": tools.response_tokens,
        "seconds": tools.seconds,
        **{f"ended_by_{ending}": tools.endings.get(ending, 0.0) for ending in ENDINGS if tools.endings},
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    mean, low, high = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _heading(run: Evaluation, figures: Mapping[str, Figures]) -> str:
    lookahead = {True: "with look-ahead", False: "without look-ahead", None: "look-ahead in some samples"}
    lines = [f"{visible(run.name)}: {visible(run.path)}, step {run.step}, {lookahead[lookahead_of(run)]}"]
    left_out: dict[str, int] = {}
    for name in run.problems:
        for reason, count in figures[name].left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    lines += [f"  note: {warning}" for warning in run.warnings]
    lines += [
        f"  note: {count} samples are left out of the scores: {visible(reason)}"
        for reason, count in left_out.items()
    ]
    return "\n".join(lines)


def _rows(
    runs: Sequence[Evaluation], figures: Sequence[Mapping[str, Figures]]
) -> Iterable[tuple[list[str], Figures]]:
    """Each data source with the runs below each other, and the first columns of its line."""
    for source in sources_of(figures):
        for run, of in zip(runs, figures, strict=True):
            if source in of:
                yield [source, *([run.name] if len(runs) > 1 else [])], of[source]


def _accuracy_table(
    runs: Sequence[Evaluation], figures: Sequence[Mapping[str, Figures]]
) -> tuple[list[str], list[list[str]]]:
    ks = sorted({k for of in figures for each in of.values() for k in each.pass_at if k > 1})
    first = ["data source", *(["run"] if len(runs) > 1 else [])]
    header = [*first, "problems", "n", "mean@n", *(f"pass@{k}" for k in ks), "maj@n"]
    lines = [
        [
            *names,
            str(of.problems),
            str(of.n[0]) if of.n[0] == of.n[1] else f"{of.n[0]}–{of.n[1]}",
            _interval(of.mean),
            *(_percent(of.pass_at.get(k)) for k in ks),
            _percent(of.majority),
        ]
        for names, of in _rows(runs, figures)
    ]
    return header, lines


def _tool_table(
    runs: Sequence[Evaluation], figures: Sequence[Mapping[str, Figures]]
) -> tuple[list[str], list[list[str]]]:
    first = ["data source", *(["run"] if len(runs) > 1 else [])]
    header = [
        *first, "use tool", "calls", "1st fails", "finally", "rolled back", "turns", "generated", "kept",
        "discarded", "truncated",
    ]  # fmt: skip
    lines = [
        [
            *names,
            _percent(of.tools.used),
            _number(of.tools.calls, 2),
            _percent(of.tools.first_failed),
            _percent(of.tools.final_failed),
            _number(sum(of.tools.rollbacks.values()) if of.tools.rollbacks else None, 2),
            _number(of.tools.turns, 2),
            _number(of.tools.generated_tokens, 0),
            _number(of.tools.kept_tokens, 0),
            _number(of.tools.discarded_tokens, 0),
            _percent(of.tools.endings.get(LENGTH, 0.0) if of.tools.endings else None),
        ]
        for names, of in _rows(runs, figures)
    ]
    return header, lines


def _comparison_table(run: Evaluation, first: Evaluation, seed: int) -> str:
    found = compare(run, first, seed)
    lines = [_comparison_line(source, found[source]) for source in sources_of([found])]
    title = f"{run.name} minus {first.name}, by problem, in points of mean@n"
    return _table(
        title, ["data source", "problems", "difference", "better", "worse", "equal", "unmatched"], lines
    )


def _comparison_line(source: str, of: Comparison) -> list[str]:
    counts = (of.better, of.worse, of.equal, of.unmatched)
    return [source, str(of.problems), _interval(of.difference, signed=True), *map(str, counts)]


def _table(title: str, header: list[str], lines: list[list[str]]) -> str:
    cells = [[visible(cell).replace("\n", " ") for cell in line] for line in [header, *lines]]
    texts = 2 if "run" in header else 1
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    shown = [
        "  ".join(
            cell.ljust(width) if i < texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    return "\n".join([visible(title), *(f"  {line}" for line in shown)])


def _interval(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return _NONE
    plus = "+" if signed else ""
    mean = f"{100 * interval.mean:{plus}.1f}"
    if interval.low is None or interval.high is None:
        return mean
    return f"{mean} [{100 * interval.low:{plus}.1f}, {100 * interval.high:{plus}.1f}]"


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
