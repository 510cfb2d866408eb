"""What goes into the HTML report: arms, curves, records, and the sample of a run that is too large."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.report.page_curves import charts_of, series_of
from cleaner.report.page_data import page_data
from cleaner.report.page_record import KINDS, LONGEST_TEXT, errors_of, kinds_of, page_record
from cleaner.report.run_arms import group_runs, run_names
from cleaner.report.run_dir import RunDirectory
from cleaner.report.trajectory_sample import TrajectorySample, json_size

WriteRun = Callable[..., Path]


def opened(folders: list[Path]) -> list[RunDirectory]:
    return [RunDirectory.open(folder) for folder in folders]


def test_runs_that_differ_by_seed_and_place_alone_are_one_arm(two_arms: list[Path]) -> None:
    runs = opened(two_arms)
    arms = group_runs(runs, run_names(runs))
    assert [(arm.name, arm.runs) for arm in arms] == [("saar", (0, 1)), ("base-1", (2,))]
    assert [arm.differs for arm in arms] == [
        (("cleaner.strategy", '"saar"'),),
        (("cleaner.strategy", '"none"'),),
    ]


def test_a_setting_or_other_data_makes_another_arm(two_arms: list[Path]) -> None:
    config = two_arms[1] / "config.yaml"
    config.write_text(config.read_text().replace("rows-2-77", "rows-2-78"))
    assert len(group_runs(opened(two_arms), ["a", "b", "c"])) == 3


def test_runs_without_a_configuration_are_arms_of_their_own(write_run: WriteRun) -> None:
    runs = opened([write_run([], name="a"), write_run([], name="b")])
    assert [arm.runs for arm in group_runs(runs, ["a", "b"])] == [(0,), (1,)]


def test_runs_of_one_name_are_told_apart_by_their_parents(write_run: WriteRun, tmp_path: Path) -> None:
    folders = []
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        folders.append(write_run([], name=f"{parent}/run"))
    assert run_names(opened(folders)) == ["x/run", "y/run"]


def test_curves_are_those_that_were_logged_and_a_step_without_an_error_counts_zero(
    write_run: WriteRun,
) -> None:
    run = RunDirectory.open(
        write_run(
            [
                (0, {"val/accuracy": 0.4}),
                (1, {"rollback/triggered": 2, "rollback/triggered/NameError": 2, "timing_s/step": 3.5}),
                (
                    2,
                    {
                        "rollback/triggered": 0,
                        "rollback/discarded_tokens": 5,
                        "rollback/generated_tokens": 20,
                    },
                ),
            ]
        )
    )
    assert series_of(run) == {
        "val_accuracy": [(0, 0.4)],
        "triggered": [(1, 2.0), (2, 0.0)],
        "triggered/NameError": [(1, 2.0), (2, 0.0)],
        "seconds": [(1, 3.5)],
        "discarded": [(2, 0.25)],
    }
    assert [chart.title for chart in charts_of([run])] == [
        "Accuracy", "Rollbacks", "Discarded tokens", "Seconds a step", "NameError"
    ]  # fmt: skip


@pytest.mark.parametrize(("reward", "shown"), [(0.5, False), (0.7, True)])
def test_rewards_have_a_chart_where_they_say_more_than_accuracy(
    write_run: WriteRun, reward: float, shown: bool
) -> None:
    run = RunDirectory.open(write_run([(1, {"accuracy": 0.5, "reward": reward})]))
    assert ("Reward" in [chart.title for chart in charts_of([run])]) is shown


def test_kinds_and_errors_follow_the_record(records: Any) -> None:
    both = records.trajectory(1, repairs=[records.repair("shallow", 0.8), records.repair("exhausted", None)])
    assert kinds_of(both) == ["shallow", "exhausted"] and errors_of(both) == ["NameError"]
    failed = {**records.trajectory(1), "saar": {"failures": {"program_error": 2, "TypeError": 2}}}
    assert kinds_of(failed) == ["failed"] and errors_of(failed) == ["TypeError"]
    assert kinds_of(records.trajectory(1)) == ["clean"]


def test_the_mask_is_that_of_training(records: Any) -> None:
    line = records.trajectory(1)
    line["segments"] = [
        {"origin": origin, "trained": origin != "observation", "text": "x", "tokens": 1}
        for origin in ("sampled", "grafted", "observation")
    ]
    trained = {
        "as recorded": page_record(line),
        "grafts masked": page_record(line, grafts_trained=False),
        "validation": page_record({**line, "phase": "val"}),
    }
    assert {name: [segment[1] for segment in record["segments"]] for name, record in trained.items()} == {
        "as recorded": [1, 1, 0], "grafts masked": [1, 0, 0], "validation": [0, 0, 0]
    }  # fmt: skip


def test_a_very_long_text_loses_its_middle_and_says_so(records: Any) -> None:
    record = page_record({**records.trajectory(1), "prompt": "a" * 50_000 + "end"})
    assert len(record["prompt"]) < LONGEST_TEXT + 100
    assert "characters left out" in record["prompt"] and record["prompt"].endswith("end")


_TEXT = st.text(alphabet="a<\u202e\ud800\x00 ", max_size=6)
_VALUE = st.none() | st.booleans() | st.integers() | st.floats() | _TEXT
_PART = st.dictionaries(
    st.sampled_from(["origin", "text", "tokens", "decision", "outcome", "status", "accepted"]),
    _VALUE,
    max_size=4,
)
_PARTS = _VALUE | st.lists(_VALUE | _PART, max_size=3)
_REPAIR = st.fixed_dictionaries(
    {}, optional={"decision": _VALUE, "failed": _VALUE | _PART, "attempts": _PARTS}
)
_LINE = {
    **dict.fromkeys(("phase", "step", "prompt", "reward", "data_source", "accuracy"), _VALUE | _PART),
    "segments": _PARTS,
    "repairs": _PARTS | st.lists(_REPAIR, max_size=2),
    "saar": _VALUE | st.fixed_dictionaries({}, optional={"failures": _PARTS | _PART}),
}


@given(st.fixed_dictionaries({}, optional=_LINE))
def test_any_record_whatever_becomes_plain_json(line: dict[str, Any]) -> None:
    record = page_record(line)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record["kinds"]) <= set(KINDS) and record["kinds"]
    json_size(record)  # encodes: no lone surrogate is left


def many(records: Any, clean: int, rare: int) -> list[dict[str, Any]]:
    lines = [{**records.trajectory(1 + number % 9), "index": number} for number in range(clean)]
    step = max(1, clean // (rare + 1))
    for number in range(rare):
        lines.insert(number * step, records.trajectory(2, repairs=[records.repair("deep", 0.2)]))
    return lines


def sampled(lines: list[dict[str, Any]], room: int, seed: int = 0) -> TrajectorySample:
    sample = TrajectorySample(room, seed)
    sample.read(0, lines)
    return sample


def test_all_trajectories_are_shown_where_they_fit(records: Any) -> None:
    chosen = sampled(many(records, 50, 3), 10**6).choose()
    assert {kind: len(found) for (_, _, kind), found in chosen.items()} == {"clean": 50, "deep": 3}


def test_rare_kinds_stay_whole_where_common_ones_are_thinned(records: Any) -> None:
    lines = many(records, 3000, 4)
    sample = sampled(lines, 30_000)
    chosen = sample.choose()
    assert len(chosen[0, "train", "deep"]) == 4
    clean = chosen[0, "train", "clean"]
    assert 20 < len(clean) < 300
    # Drawn from the whole run, not from its beginning.
    assert max(entry.position for entry in clean) > 2000 > 1000 > min(entry.position for entry in clean)
    texts = {entry.record["prompt"] for found in chosen.values() for entry in found}
    size = sum(json_size({**entry.record, "prompt": 0}) for found in chosen.values() for entry in found)
    assert size + sum(map(json_size, texts)) <= 30_000
    assert {key[2]: stratum.recorded for key, stratum in sample.strata.items()} == {"clean": 3000, "deep": 4}


def test_a_sample_follows_from_its_seed(records: Any) -> None:
    lines = many(records, 500, 2)

    def positions(seed: int) -> list[int]:
        return [entry.position for entry in sampled(lines, 20_000, seed).choose()[0, "train", "clean"]]

    assert positions(0) == positions(0) != positions(1)


def test_memory_is_bounded_by_the_room_however_many_lines_there_are(records: Any) -> None:
    sample = sampled(many(records, 4000, 0), 10_000)
    held = list(sample.strata[0, "train", "clean"].in_draw_order())
    assert sum(candidate.size for candidate in held) <= 10_000 and len(held) < 100


def test_a_kind_does_not_vanish_though_its_only_trajectory_is_larger_than_the_room(records: Any) -> None:
    huge = {**records.trajectory(1, repairs=[records.repair("deep", 0.2)]), "prompt": "x" * 10_000}
    assert len(sampled([huge], 1000).choose()[0, "train", "deep"]) == 1


def test_the_data_hold_every_run_with_its_curves_and_trajectories(
    two_arms: list[Path], quick_run: Path
) -> None:
    runs = opened([*two_arms, quick_run])
    heard: list[tuple[int, int]] = []
    data = page_data(runs, 10**6, progress=lambda run, done: heard.append((run, done)))
    assert [arm["runs"] for arm in data["arms"]] == [(0, 1), (2,), (3,)]
    assert [len([t for t in data["trajectories"] if t["run"] == run]) for run in range(4)] == [1, 1, 1, 5]
    assert data["runs"][3]["gamma"] == 0.5 and data["runs"][3]["accuracy"]["after"] == 0.6
    assert len(data["prompts"]) == 1, "one prompt, carried once"
    assert [done for run, done in heard if run == 3][-1] == (quick_run / "trajectories.jsonl").stat().st_size
    assert not math.isnan(json.loads(json.dumps(data, allow_nan=False))["schema"])
