"""The closing report as a reader sees it, also when a model tries to write it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleaner.report.closing import close_run, show_run
from cleaner.report.repair_choice import choose_repairs
from cleaner.report.run_dir import NotARunDirectory
from cleaner.report.terminal import console_for

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]markup[/]\u202eevil\x9b31m\r\x08 <script>alert(1)</script> \ud800"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(run_dir: Path, stream: io.StringIO | None = None, **choice: Any) -> str:
    stream = stream or io.StringIO()
    show_run(run_dir, console=console_for(stream, width=100), **choice)
    return stream.getvalue()


def test_the_table_says_what_changed_what_was_repaired_and_what_it_cost(quick_run: Path) -> None:
    text = shown(quick_run)
    for label, value in (
        ("accuracy", "0.400 → 0.600"),
        ("first-attempt tool success", "0.300 → 0.700"),
        ("triggered", "8"),
        ("recovered", r"6 \(75%\)"),
        ("shallow repairs", "4"),
        ("deep repairs", "2"),
        ("discarded tokens", "10.0%"),
        ("NameError", "6"),
        ("training", "9.5"),
        ("update_actor", "3.0"),
    ):
        assert re.search(rf"{label}.*{value}", text), label
    assert "without rollback" in text and "seed 7" in text


def test_a_repaired_trajectory_is_readable_before_and_after(quick_run: Path) -> None:
    text = shown(quick_run)
    order = [
        "step 2",
        "greatest common divisor",
        "BEFORE",
        "print(math.gcd(12, 18))",
        "program error (NameError)",
        "Attempt 1: program error (NameError)",
        "Attempt 2, accepted, similarity 0.82: ok",
        "import math",
        "shallow repair",
        "0.82 >= gamma 0.5",
        "AFTER",
        "import math",
        "+import math",
        "discarded tokens 41",
    ]
    position = 0
    for piece in order:
        position = text.index(piece, position) + len(piece)


def test_decisions_and_steps_can_be_chosen(quick_run: Path) -> None:
    assert "the whole turn is replaced" in shown(quick_run, decision="deep")
    assert "no attempt succeeded" in shown(quick_run, decision="exhausted")
    assert "No repaired trajectory" in shown(quick_run, step=99)
    assert shown(quick_run, count=4).count("BEFORE") == 4
    assert "BEFORE" not in shown(quick_run, count=0)


def test_the_choice_prefers_recovered_and_correct(records: Any) -> None:
    wrong = records.trajectory(9, accuracy=0.0, repairs=[records.repair("deep", 0.1)])
    lost = records.trajectory(9, repairs=[records.repair("exhausted", None)])
    right = records.trajectory(1, repairs=[records.repair("shallow", 0.9)])
    assert choose_repairs([wrong, lost, right])[0].trajectory is right
    assert [chosen.trajectory for chosen in choose_repairs([lost, wrong, right], count=9)] == [
        right,
        wrong,
        lost,
    ]
    assert choose_repairs([lost, right, wrong]) == choose_repairs([right, lost, wrong])


def test_hostile_text_can_not_drive_the_terminal_or_forge_markup(
    write_run: Callable[..., Path], records: Any
) -> None:
    repair = records.repair("shallow", 0.8, after=HOSTILE)
    repair["failed"] = {**repair["failed"], "reasoning": HOSTILE, "call": HOSTILE, "code": HOSTILE}
    repair["failed"]["outcome"] = {"status": HOSTILE, "exception": HOSTILE, "text": HOSTILE}
    repair["attempts"][1] = repair["failed"]
    trajectory = {**records.trajectory(1, repairs=[repair]), "prompt": HOSTILE, "data_source": HOSTILE}
    folder = write_run(
        [(1, {f"tool_calls/failure/{HOSTILE}": 1, "tool_calls/failure/program_error": 1})], [trajectory]
    )
    (folder / "phases.jsonl").write_text(json.dumps({"phase": HOSTILE, "seconds": 1}) + "\n")
    plain = shown(folder)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800]", plain)
    assert "[bold red]markup[/]" in plain and "␛[2J" in plain
    plain.encode("utf-8")
    on_terminal = shown(folder, Terminal())
    own_sequences = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", own_sequences)


@pytest.mark.parametrize(
    "broken",
    [
        {"repairs": "none"},
        {"repairs": [None, 3, {}]},
        {
            "repairs": [
                {"decision": "shallow", "failed": 3, "attempts": 7, "after": None, "similarity": "high"}
            ]
        },
        {
            "repairs": [{"decision": ["x"], "attempts": [None, {"outcome": []}], "accepted": "0"}],
            "step": "one",
        },
    ],
)
def test_records_of_another_shape_do_not_break_the_report(
    write_run: Callable[..., Path], broken: Any
) -> None:
    assert "In " in shown(write_run([(1, {})], [broken]), count=5)


def test_colours_appear_only_on_a_terminal(quick_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" not in shown(quick_run)
    assert "\x1b[3" in shown(quick_run, Terminal())


def test_an_empty_run_is_shown_without_inventing_figures(write_run: Callable[..., Path]) -> None:
    text = shown(write_run([]))
    assert "not measured" in text and "not logged" in text and "No repaired trajectory" in text


def test_a_baseline_says_that_rollback_is_off(quick_run: Path) -> None:
    (quick_run / "config.yaml").write_text("cleaner: {strategy: none}\n")
    assert "baseline" in shown(quick_run)


def test_long_output_is_cut_with_a_marker(write_run: Callable[..., Path], records: Any) -> None:
    repair = records.repair("shallow", 0.8, after="\n".join(f"line {number}" for number in range(5000)))
    text = shown(write_run([], [records.trajectory(1, repairs=[repair])]))
    assert "more lines" in text and len(text.splitlines()) < 300


def test_closing_writes_everything_and_showing_writes_nothing(quick_run: Path) -> None:
    before = sorted(quick_run.rglob("*"))
    shown(quick_run)
    assert sorted(quick_run.rglob("*")) == before
    close_run(quick_run, console_for(io.StringIO()))
    assert (quick_run / "summary.json").is_file() and (quick_run / "plots" / "accuracy.png").is_file()


def test_the_commands_print_and_refuse(quick_run: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=60)

    done = call("cleaner.report", str(quick_run))
    assert done.returncode == 0 and "0.400 → 0.600" in done.stdout
    assert call("cleaner.cli", "show", str(quick_run)).returncode == 0
    for module in (["cleaner.report"], ["cleaner.cli", "show"]):
        refused = call(*module, str(tmp_path))
        assert (
            refused.returncode == 2
            and refused.stderr.startswith("error: ")
            and "Traceback" not in refused.stderr
        )


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunDirectory):
        shown(tmp_path)
