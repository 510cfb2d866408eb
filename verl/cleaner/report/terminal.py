"""Prints a run's summary and its repairs for a reader at a terminal.

Everything that a model, a tool or a data set wrote passes `visible`, and rich renders it as plain `Text`,
never as markup: a trajectory can neither recolour the terminal nor forge the table around it. Colours appear
only on a terminal (and not with NO_COLOR set); in a file or a pipe the same text is plain.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cleaner.report.repair_choice import Repair
from cleaner.report.run_dir import RunDirectory
from cleaner.report.summary import Change, Summary
from cleaner.report.visible_text import shorten, visible

_PLAIN_WIDTH = 100
_QUESTION_LINES = 12
_CODE_LINES = 24
_OUTPUT_LINES = 8


def console_for(stream: IO[str] | None = None, width: int | None = None) -> Console:
    """A console on `stream` (standard output by default): colours on a terminal only, 100 columns
    elsewhere.
    """
    stream = stream or sys.stdout
    terminal = hasattr(stream, "isatty") and stream.isatty()
    return Console(
        file=stream,
        width=width or (None if terminal else _PLAIN_WIDTH),
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=terminal,
    )


def print_run(
    run: RunDirectory, summary: Summary, repairs: list[Repair], console: Console | None = None
) -> None:
    """The closing report: the table, the given repairs, and where the files are."""
    console = console or console_for()
    console.print(summary_table(run, summary))
    for repair in repairs:
        console.print()
        console.print(repair_view(repair, summary.settings.get("gamma")))
    if not repairs:
        console.print(Text("No repaired trajectory is recorded in this run.", style="dim"))
    for warning in run.warnings:
        console.print(Text(f"Note: {visible(warning)}", style="yellow"))
    console.print()
    console.print(_files(run))


def summary_table(run: RunDirectory, summary: Summary) -> Table:
    """Accuracy and first-attempt success before and after, what SAAR did, what it cost, seconds by phase."""
    table = Table(title=Text(_title(run, summary)), title_justify="left", show_header=False, pad_edge=False)
    table.add_column("", no_wrap=False)
    table.add_column("", justify="right")
    for label, value in summary_rows(summary):
        if value is None:
            table.add_section()
            table.add_row(Text(label, style="bold"), Text(""))
        else:
            table.add_row(Text(f"  {visible(label)}"), Text(visible(value)))
    return table


def summary_rows(summary: Summary) -> list[tuple[str, str | None]]:
    """The table as `(label, text)`; a heading has None for its text."""
    rollbacks = summary.rollbacks
    rows: list[tuple[str, str | None]] = [("Validation, without rollback, before → after", None)]
    if summary.settings.get("rollback_in_validation"):
        rows = [("Validation, with rollback, before → after", None)]
    rows.append(("accuracy", _change(summary.accuracy)))
    if len(summary.accuracy_by_source) > 1:
        rows += [(f"  {source}", _change(change)) for source, change in summary.accuracy_by_source.items()]
    rows.append(("first-attempt tool success", _change(summary.first_attempt_success)))
    steps = [change for change in (summary.accuracy, summary.first_attempt_success) if change]
    if steps:
        rows.append(("at steps", f"{steps[0].before_step} → {steps[0].after_step}"))
    rows.append(("Rollbacks in training", None))
    if (strategy := summary.settings.get("strategy", "saar")) != "saar":
        rows.append(("switched off (baseline)" if strategy == "none" else f"none (strategy {strategy})", ""))
    else:
        rows += [
            ("triggered", _count(rollbacks.triggered)),
            ("recovered", _count(rollbacks.recovered, rollbacks.triggered)),
            ("  shallow repairs (call replaced)", _count(rollbacks.shallow)),
            ("  deep repairs (whole turn replaced)", _count(rollbacks.deep)),
            ("exhausted (failing turn kept)", _count(rollbacks.exhausted)),
            ("discarded tokens, share of all generated", _share(rollbacks.discarded_share)),
        ]
        if rollbacks.lookahead_seconds is not None:
            rows.append(
                ("seconds in look-ahead, summed over trajectories", f"{rollbacks.lookahead_seconds:.1f}")
            )
    if summary.failures:
        rows.append(("Failing tool calls in training", None))
        for status, number in summary.failures.items():
            rows.append((status.replace("_", " "), _count(number)))
            if status == "program_error":
                rows += [(f"  {kind}", _count(count)) for kind, count in summary.exceptions.items()]
    if summary.seconds:
        rows.append(("Seconds by phase", None))
        rows += [(phase, f"{seconds:.1f}") for phase, seconds in summary.seconds.items()]
    if summary.training_seconds:
        rows.append((f"Seconds in {summary.steps} training steps", None))
        rows += [(part, f"{seconds:.1f}") for part, seconds in summary.training_seconds.items()]
    return rows


def repair_view(chosen: Repair, gamma: float | None = None) -> RenderableType:
    """One repaired turn: the question, what was sampled, why it failed, the attempts, the decision, what is
    trained.
    """
    trajectory, repair = chosen.trajectory, chosen.repair
    failed = _mapping(repair.get("failed"))
    attempts = [_mapping(attempt) for attempt in _list(repair.get("attempts"))]
    before = _readable_turn(f"{failed.get('reasoning') or ''}{failed.get('call') or ''}", [failed])
    after = _readable_turn(str(repair.get("after") or ""), [*attempts, failed])
    parts: list[RenderableType] = [
        Rule(Text(_repair_title(trajectory, repair)), align="left"),
        _block("Prompt", trajectory.get("prompt"), _QUESTION_LINES, "dim"),
        Text(),
        _block("BEFORE: the turn that the model sampled", before, _CODE_LINES, "red"),
        _block(_outcome_label(failed), _mapping(failed.get("outcome")).get("text"), _OUTPUT_LINES, "red"),
    ]
    for number, attempt in enumerate(attempts):
        accepted = repair.get("accepted") == number
        similarity = _similarity(attempt.get("similarity"))
        label = (
            f"Attempt {number + 1}{', accepted' if accepted else ''}{similarity}: {_outcome_label(attempt)}"
        )
        text = attempt.get("code") or attempt.get("call") or "(no tool call)"
        parts.append(Text())
        parts.append(_block(label, text, _CODE_LINES, "green" if accepted else "yellow"))
        parts.append(_block("", _mapping(attempt.get("outcome")).get("text"), _OUTPUT_LINES, "dim"))
    parts += [Text(), Text(_decision(repair, gamma), style="bold"), Text()]
    parts.append(_block("AFTER: the turn that is trained", after, _CODE_LINES, "green"))
    if repair.get("decision") in ("shallow", "deep"):
        parts += [Text("What changed (- sampled, + trained)", style="bold"), _difference(before, after)]
    parts.append(Text(_costs(trajectory, repair), style="dim"))
    return Group(*parts)


def _title(run: RunDirectory, summary: Summary) -> str:
    settings = summary.settings
    details = [f"{summary.steps} steps"]
    if "strategy" in settings:
        details.append(f"strategy {settings['strategy']}")
    details += [f"{name} {settings[name]}" for name in ("gamma", "seed") if name in settings]
    return visible(f"{run.path}: {', '.join(details)}")


def _change(change: Change | None) -> str:
    if change is None:
        return "not measured"
    if change.before_step == change.after_step:
        return f"{change.before:.3f} (one validation only)"
    return f"{change.before:.3f} → {change.after:.3f}"


def _count(value: float | None, whole: float | None = None) -> str:
    if value is None:
        return "not logged"
    text = f"{value:,.0f}"
    return f"{text} ({value / whole:.0%})" if whole else text


def _share(value: float | None) -> str:
    return "not logged" if value is None else f"{value:.1%}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _readable_turn(turn: str, calls: list[Mapping[str, Any]]) -> str:
    """The turn with each of the given calls shown as its code, instead of one line of escaped JSON."""
    for call in calls:
        text, code = call.get("call"), call.get("code")
        if isinstance(text, str) and isinstance(code, str) and text.strip():
            turn = turn.replace(text.strip(), f"[tool call]\n{code.strip()}\n[end of call]")
    return turn


def _similarity(value: Any) -> str:
    return f", similarity {value:.2f}" if isinstance(value, int | float) else ""


def _outcome_label(attempt: Mapping[str, Any]) -> str:
    outcome = _mapping(attempt.get("outcome"))
    status = visible(outcome.get("status") or "no outcome recorded").replace("_", " ")
    return f"{status} ({visible(outcome['exception'])})" if outcome.get("exception") else status


def _repair_title(trajectory: Mapping[str, Any], repair: Mapping[str, Any]) -> str:
    pieces = [
        "A repaired turn"
        if repair.get("decision") in ("shallow", "deep")
        else "A turn that stayed unrepaired"
    ]
    for label, key in (("", "phase"), ("step ", "step"), ("", "data_source"), ("turn ", "turn")):
        value = repair.get(key) if key == "turn" else trajectory.get(key)
        if value is not None:
            pieces.append(f"{label}{value}")
    return visible(", ".join(pieces)).replace("\n", " ")


def _decision(repair: Mapping[str, Any], gamma: float | None) -> str:
    similarity = repair.get("similarity")
    compared = ""
    if isinstance(similarity, int | float):
        compared = f" (similarity {similarity:.2f}"
        if isinstance(gamma, int | float):
            compared += f" {'>=' if similarity >= gamma else '<'} gamma {gamma:g}"
        compared += ")"
    explained = {
        "shallow": ("shallow repair", "the reasoning is kept, only the call is replaced"),
        "deep": ("deep repair", "the whole turn is replaced"),
        "kept": ("kept", "nothing is replaced, the look-ahead stays in the history as sampled"),
        "exhausted": ("exhausted", "no attempt succeeded, the failing turn is kept"),
    }
    decision = str(repair.get("decision"))
    name, meaning = explained.get(decision, (visible(decision), "unknown to this version"))
    return f"Decision: {name}{compared}: {meaning}."


def _costs(trajectory: Mapping[str, Any], repair: Mapping[str, Any]) -> str:
    pieces = []
    for label, value in (
        ("discarded tokens", repair.get("discarded_tokens")),
        ("look-ahead tokens", repair.get("lookahead_tokens")),
        ("seconds", repair.get("seconds")),
        ("reward of the trajectory", trajectory.get("reward")),
    ):
        if isinstance(value, int | float):
            pieces.append(f"{label} {value:.2f}" if isinstance(value, float) else f"{label} {value}")
    return ", ".join(pieces)


def _block(label: str, text: Any, lines: int, style: str) -> RenderableType:
    """A labelled, indented block; nothing at all where there is no text."""
    content = visible("" if text is None else text).strip("\n")
    parts: list[RenderableType] = [Text(label, style="bold")] if label else []
    if content:
        parts.append(Padding(Text(shorten(content, lines), style=style), (0, 0, 0, 4), expand=False))
    return Group(*parts)


def _difference(before: str, after: str) -> RenderableType:
    rows = difflib.unified_diff(_rows(before), _rows(after), lineterm="", n=1)
    text = Text()
    for row in list(rows)[2:]:
        if not row.startswith("@@"):
            text.append(f"{row}\n", style={"+": "green", "-": "red"}.get(row[:1], "dim"))
    text.rstrip()
    return Padding(text, (0, 0, 0, 4), expand=False)


def _rows(text: str) -> list[str]:
    return shorten(visible(text).strip("\n"), _CODE_LINES * 2).split("\n")


def _files(run: RunDirectory) -> Text:
    found = [entry.name + ("/" if entry.is_dir() else "") for entry in sorted(run.path.iterdir())]
    return Text(visible(f"In {run.path}: {', '.join(found)}"), style="dim")
