"""Each check by itself: none stops the others, none outlives its time, nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cleaner.gpu_check import __main__ as gpu_check
from cleaner.gpu_check import machine, training
from cleaner.gpu_check.command import run, tail
from cleaner.gpu_check.row import FAILED, OK, SKIPPED, Row
from cleaner.gpu_check.settings import Settings
from cleaner.gpu_check.table import as_text

ROOT = Path(__file__).parents[2]
# A program that starts another in a session of its own, as Ray does, and neither ends.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        output=tmp_path, recipe=ROOT / "recipe/cleaner", rows=tmp_path, model=tmp_path, engines=("hf_server",)
    )


def test_a_program_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    ended = run([sys.executable, "-c", FAMILY], tmp_path / "log", limit_s=1.5)
    assert ended.status is None and "time limit" in ended.reason
    assert not psutil.pid_exists(int(tail(tmp_path / "log")[0]))


def test_how_a_program_ended_is_told(tmp_path: Path) -> None:
    def reason(code: str) -> str:
        return run([sys.executable, "-c", code], tmp_path / "log", limit_s=30).reason

    assert reason("pass") == ""
    assert "status 3" in reason("raise SystemExit(3)")
    assert "signal 9" in reason("import os; os.kill(os.getpid(), 9)")


def test_the_end_of_a_log_cannot_command_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"old\n" * 50 + b"\x1b[2J\x1b]0;title\x07 red\xff\n10 %\r20 %\n")
    lines = tail(tmp_path / "log", 3)
    assert lines[-2:] == ["10 %", "20 %"] and "\x1b" not in lines[0] and lines[0].endswith(" red\ufffd")


def test_a_check_that_fails_or_breaks_stops_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (settings.output / "log").write_text("the cause\n")

    def broken(_: Settings) -> Row:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(machine, "device", broken)
    failing = Row("cleaner doctor", FAILED, "", "no verl", "Install it", str(settings.output / "log"))
    monkeypatch.setattr(machine, "doctor", lambda _: failing)
    monkeypatch.setattr(machine, "judge", lambda _: Row("judge", OK, "there"))
    monkeypatch.setattr(
        training, "train", lambda _, engine, dtype, missing: [Row(f"{engine} {dtype}", OK, "3 steps")]
    )
    assert gpu_check.check(settings) == 1
    printed = capsys.readouterr().out
    for text in ("ZeroDivisionError: oh", "the cause", "no verl", "-> Install it.", "3 steps"):
        assert text in printed
    result = json.loads((settings.output / "result.json").read_text())
    assert result["failed"] and not result["stopped"]
    assert [row["result"] for row in result["rows"]] == [FAILED, FAILED, OK, OK, OK]


def test_without_inputs_or_on_a_cpu_what_cannot_be_tried_is_skipped_with_its_reason(
    settings: Settings,
) -> None:
    on_cpu = Settings(**{**vars(settings), "on_cpu": True})
    [row] = training.train(on_cpu, "vllm", "float16")
    assert row.result == SKIPPED and "GPU" in row.reason
    [row] = training.train(settings, "hf_server", "float16", "there is no judge")
    assert row.result == SKIPPED and row.reason == "not tried: there is no judge"


@pytest.mark.parametrize("broken", ["device", "judge", "set-up"])
def test_nothing_is_trained_without_device_judge_or_inputs(
    settings: Settings, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "set-up":
        settings = Settings(**{**vars(settings), "unprepared": ("no rows",)})
    for name, check in (("device", "device"), ("doctor", "cleaner doctor"), ("judge", "judge")):
        row = Row(check, FAILED if check == broken else OK)
        monkeypatch.setattr(machine, name, lambda _, row=row: row)
    assert gpu_check.check(settings) == 1
    result = json.loads((settings.output / "result.json").read_text())
    trainings = [row for row in result["rows"] if row["check"].startswith("hf_server")]
    assert [row["result"] for row in trainings] == [SKIPPED] * 2
    assert all("not tried" in row["reason"] for row in trainings)


def test_a_judge_that_did_not_start_is_told_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CODE_JUDGE_URL", raising=False)
    log = settings.output / "judge.log"
    row = machine.judge(Settings(**{**vars(settings), "judge_log": log}))
    assert row.result == FAILED and row.log == str(log) and "code-judge doctor" in row.advice


def test_a_long_reason_is_wrapped_under_its_row() -> None:
    text = as_text([Row("a check", FAILED, "12 tokens/s", "because " * 30, "Do this", "/tmp/log")], width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("a check  FAILED  12 tokens/s") and lines[3].startswith(" " * 17 + "because")
    assert lines[-2].strip() == "-> Do this." and lines[-1].strip() == "log: /tmp/log"


def marked(mark: str) -> Iterator[int]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("GPU_CHECK_MARK") == mark:
                yield process.pid


def test_a_stop_ends_what_runs_and_still_writes_the_table(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    arguments = [
        "--output",
        str(tmp_path),
        "--recipe",
        str(ROOT / "recipe/cleaner"),
        "--unprepared",
        "nothing",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "cleaner.gpu_check", *arguments],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "GPU_CHECK_MARK": mark, "VERL_PLATFORM": "cpu"},
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "... device\n"
    log, deadline = tmp_path / "logs/device.log", time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped while it ran" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["stopped"] and [row["result"] for row in result["rows"]][:2] == [FAILED, SKIPPED]
    assert list(marked(mark)) == []


@pytest.mark.parametrize(
    ("environment", "told"),
    [({"DTYPES": "fp16"}, "DTYPES"), ({"ENGINES": "trt"}, "ENGINES"), ({"STEPS": "0"}, "STEPS"),
     ({"MODELS": "/nowhere"}, "MODELS"), ({"MODEL": "nothing"}, "MODEL")],
)  # fmt: skip
def test_the_script_refuses_what_it_does_not_know_before_it_starts_anything(
    environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["bash", "scripts/gpu_check.sh"], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "OUTPUT_DIR": str(tmp_path), "PYTHON": sys.executable, "DRY_RUN": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 2 and told in done.stderr
