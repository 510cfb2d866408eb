"""The trajectory log: whole lines, whatever the model wrote, and a clear error when the disk is full."""

import json
from pathlib import Path
from typing import Any

import pytest

from cleaner.trajectory_log import TrajectoryLog


def row(text: str | None) -> dict[str, Any]:
    trajectory = None if text is None else {"prompt": text, "segments": [], "repairs": []}
    return {"trajectory": trajectory, "header": {"uid": "u", "reward": 1.0}}


def test_each_recorded_trajectory_is_one_line_with_phase_and_step(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "deep" / "trajectories.jsonl")
    log.append("train", 3, [row("one\ntwo\u2028three"), row(None)])
    log.append("val", 4, [row("x")])
    lines = [json.loads(line) for line in log.path.read_bytes().splitlines()]
    assert [(line["phase"], line["step"], line["prompt"]) for line in lines] == [
        ("train", 3, "one\ntwo\u2028three"),
        ("val", 4, "x"),
    ]
    assert all(line["schema"] == 1 and line["reward"] == 1.0 for line in lines)


def test_text_that_no_encoding_can_hold_does_not_stop_a_run(tmp_path: Path) -> None:
    log = TrajectoryLog(tmp_path / "trajectories.jsonl")
    log.append("train", 1, [row("lone \ud83d surrogate")])
    assert "lone" in json.loads(log.path.read_bytes())["prompt"]


def test_a_full_disk_says_which_file_and_what_to_do() -> None:
    log = TrajectoryLog.__new__(TrajectoryLog)
    log.path = Path("/dev/full")
    with pytest.raises(
        OSError, match="cannot write trajectories to /dev/full.*resume from the last checkpoint"
    ):
        log.append("train", 1, [row("x")])
