"""What must be right before anything is trained: the device, the installation, the judge."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cleaner.gpu_check.command import Ended, run, tail
from cleaner.gpu_check.row import FAILED, NOTE, OK, Row
from cleaner.gpu_check.settings import Settings
from cleaner.preflight import check_judge

_LIMIT_SECONDS = 300.0
_PROGRAM = "import sympy, numpy\nprint(6 * 7)\n"


def device(settings: Settings) -> Row:
    """A matrix product on the device in each format that is asked for."""
    log = settings.output / "logs" / "device.log"
    command = [settings.python, "-m", "cleaner.gpu_check.device_probe", *settings.dtypes]
    ended = run(command, log, _LIMIT_SECONDS)
    found = _marked(ended, "DEVICE ")
    if found is None:
        advice = "Reinstall torch for this machine's driver (`nvidia-smi` shows it), then verl"
        return Row("device", FAILED, "", f"the probe {ended.reason or 'printed nothing'}", advice, str(log))
    versions = f"torch {found['torch']}"
    if settings.on_cpu:
        text = f"CPU, as VERL_PLATFORM=cpu asks; {versions}"
        return Row("device", NOTE, text, "No GPU is used: this run says nothing about one")
    if not found["count"]:
        advice = (
            "Look at `nvidia-smi` and CUDA_VISIBLE_DEVICES; VERL_PLATFORM=cpu tries this script without a GPU"
        )
        what = (
            f"torch finds no CUDA device ({versions}, built for CUDA {found['cuda'] or 'none: a CPU build'})"
        )
        return Row("device", FAILED, "", what, advice, str(log))
    figure = (
        f"{found['count']} x {found['name']}, {found['memory_gib']} GiB, capability {found['capability']}; {versions}, "
        f"CUDA {found['cuda']}"
    )
    broken = [f"{name}: {value}" for name, value in found["formats"].items() if not _sound(name, value)]
    if broken:
        advice = "Use formats that the card has (DTYPES=...), or a torch that is built for its capability"
        return Row("device", FAILED, figure, f"wrong products in {'; '.join(broken)}", advice, str(log))
    return Row("device", OK, figure)


def doctor(settings: Settings) -> Row:
    """`cleaner doctor`."""
    log = settings.output / "logs" / "doctor.log"
    environment = {name: value for name, value in os.environ.items() if name != "CODE_JUDGE_URL"}
    ended = run([settings.python, "-m", "cleaner.cli", "doctor"], log, _LIMIT_SECONDS, environment)
    if ended.status == 0:
        return Row("cleaner doctor", OK, "all that is needed is right")
    wrong = [line for line in tail(log, 200) if line.startswith("error")]
    reason = "; ".join(" ".join(line.split()) for line in wrong) or ended.reason
    return Row("cleaner doctor", FAILED, "", reason, "The log says what to do about each", str(log))


def judge(settings: Settings) -> Row:
    """The judge answers, and runs a program."""
    url = os.environ.get("CODE_JUDGE_URL")
    log = settings.output / "logs" / "judge_run.log"
    started = str(settings.judge_log or "")
    if not url and started:
        advice = "`code-judge doctor` says what this machine lacks; CODE_JUDGE_URL names a judge elsewhere"
        return Row("judge", FAILED, "", "code-judge did not start", advice, started)
    if problems := check_judge(url):
        return Row("judge", FAILED, "", str(problems[0]), problems[0].fix, started)
    program = settings.output / "logs" / "judge_run.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(_PROGRAM, encoding="utf-8")
    command = Path(settings.python).with_name("code-judge")
    ended = run([str(command) if command.exists() else "code-judge", "run", str(program)], log, 60)
    if ended.status != 0 or not any(line.strip() == "42" for line in tail(log)):
        reason = f"a program that prints 42 did not ({ended.reason or 'see its log'})"
        return Row(
            "judge", FAILED, "", reason, "Look at the judge's log and at `code-judge doctor`", str(log)
        )
    return Row("judge", OK, f"{url}, ran a program in {ended.seconds:.1f} s, start of the client included")


def _marked(ended: Ended, mark: str) -> dict[str, Any] | None:
    for line in reversed(list(_lines(ended.log))):
        if line.startswith(mark):
            return dict(json.loads(line.removeprefix(mark)))
    return None


def _lines(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8", errors="replace").splitlines()


def _sound(name: str, error: Any) -> bool:
    # One rounding of the result, and of sums of 256 terms, which accumulate in float32 or wider (TF32 for float32).
    return isinstance(error, float) and error < {"bfloat16": 2e-2}.get(name, 3e-3)
