"""A run directory as a short run leaves it, with a clean, a shallow, a deep and an exhausted trajectory."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from page_browser import Page, open_browser

Record = dict[str, Any]


def outcome(status: str, text: str, exception: str | None = None) -> Record:
    return {"status": status, "exception": exception, "text": text}


def attempt(code: str, result: Record, similarity: float | None = None, tokens: int = 20) -> Record:
    arguments = json.dumps({"name": "code_interpreter", "arguments": {"code": code}})
    call = f"<tool_call>\n{arguments}\n</tool_call>"
    return {
        "reasoning": "I compute it.\n",
        "call": call,
        "code": code,
        "outcome": result,
        "similarity": similarity,
        "tokens": tokens,
    }


def repair(decision: str, similarity: float | None, after: str | None = None) -> Record:
    good = attempt("import math\nprint(math.gcd(12, 18))", outcome("ok", "6"), similarity)
    bad = attempt("print(gcd(12, 18))", outcome("program_error", "NameError: name 'gcd'", "NameError"), None)
    accepted = decision != "exhausted"
    failed = attempt(
        "print(math.gcd(12, 18))", outcome("program_error", "NameError: name 'math'", "NameError")
    )
    return {
        "turn": 0,
        "decision": decision,
        "similarity": similarity,
        "accepted": 1 if accepted else None,
        "failed": failed,
        "attempts": [bad, good] if accepted else [bad],
        "after": after or good["reasoning"] + good["call"],
        "discarded_tokens": 41,
        "lookahead_tokens": 40,
        "seconds": 0.25,
    }


def trajectory(
    step: int, phase: str = "train", accuracy: float = 1.0, repairs: list[Record] | None = None
) -> Record:
    return {
        "schema": 1,
        "phase": phase,
        "step": step,
        "uid": f"uid-{step}",
        "index": step,
        "session": 0,
        "data_source": "reasoning_gym/gcd",
        "prompt": "What is the greatest common divisor of 12 and 18?",
        "reward": accuracy,
        "accuracy": accuracy,
        "segments": [{"origin": "sampled", "trained": True, "text": "I compute it.", "tokens": 5}],
        "repairs": repairs or [],
        "saar": {},
    }


@pytest.fixture
def records() -> type:
    """The builders above, for tests that make records of their own."""

    class Records:
        pass

    for function in (outcome, attempt, repair, trajectory):
        setattr(Records, function.__name__, staticmethod(function))
    return Records


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory from `(step, data)` pairs and trajectory records; returns its path."""

    def write(
        steps: list[tuple[int, Record]], trajectories: list[Record] | None = None, name: str = "run"
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        lines = [json.dumps({"step": step, "data": data}) for step, data in steps]
        (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        if trajectories is not None:
            (folder / "trajectories.jsonl").write_text("".join(json.dumps(t) + "\n" for t in trajectories))
        return folder

    return write


@pytest.fixture
def quick_run(write_run: Callable[..., Path]) -> Path:
    """Two training steps between two validations, everything logged."""
    validation = {"val-core/reasoning_gym/gcd/acc/mean@1": 0.5, "val-core/reasoning_gym/lcm/acc/mean@1": 0.25}
    before = {"val/accuracy": 0.4, "val/tool_calls/first_attempt_success_rate": 0.3, **validation}
    after = {"val/accuracy": 0.6, "val/tool_calls/first_attempt_success_rate": 0.7, **validation}

    def training(step: int) -> Record:
        return {
            "accuracy": 0.5 + step / 10,
            "tool_calls/total": 20,
            "tool_calls/first_attempt_success_rate": 0.5,
            "tool_calls/failure/program_error": 3,
            "tool_calls/failure/NameError": 3,
            "tool_calls/failure/timeout": 1,
            "rollback/triggered": 4,
            "rollback/recovered": 3,
            "rollback/exhausted": 1,
            "rollback/shallow": 2,
            "rollback/deep": 1,
            "rollback/discarded_tokens": 100,
            "rollback/generated_tokens": 1000,
            "rollback/lookahead_tokens": 120,
            "rollback/lookahead_seconds": 1.5,
            "response_length/mean": 60,
            "response_length/max": 100,
            "rollback/sampled_length": 80,
            "timing_s/step": 3.0,
            "timing_s/gen": 1.0,
            "timing_s/update_actor": 1.5,
        }

    folder = write_run(
        [(0, before), (1, training(1)), (2, {**training(2), **after, "timing_s/testing": 0.5})],
        [
            trajectory(0, phase="val"),
            trajectory(1, accuracy=0.0, repairs=[repair("exhausted", None)]),
            trajectory(1, repairs=[repair("deep", 0.31)]),
            trajectory(2, repairs=[repair("shallow", 0.82)]),
            trajectory(2, accuracy=0.0, repairs=[repair("shallow", 0.9)]),
        ],
    )
    (folder / "phases.jsonl").write_text(
        '{"phase": "data", "seconds": 2.0}\n{"phase": "training", "seconds": 9.5}\n'
    )
    (folder / "config.yaml").write_text(
        "cleaner:\n  seed: 7\n  strategy: saar\n  saar: {gamma: 0.5, max_retries: 3}\n"
    )
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    """One browser for all tests of the page; without one they are skipped, with the reason."""
    with open_browser() as page:
        yield page


@pytest.fixture
def report_run(quick_run: Path) -> Path:
    """`quick_run` with the segments that its repairs leave, and a question of its own for one trajectory."""
    lines = [json.loads(line) for line in (quick_run / "trajectories.jsonl").read_text().splitlines()]
    call = attempt("import math\nprint(math.gcd(12, 18))", outcome("ok", "6"))["call"]
    observation = (
        "\n<|im_start|>user\n<tool_response>\n6\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    for line in lines:
        line["segments"] = [
            {"origin": "sampled", "trained": True, "text": "I compute it.\n", "tokens": 5},
            {"origin": "grafted", "trained": True, "text": f"{call}<|im_end|>", "tokens": 34},
            {"origin": "observation", "trained": False, "text": observation, "tokens": 6},
            {"origin": "sampled", "trained": True, "text": "It is \\boxed{6}.<|im_end|>", "tokens": 8},
        ]
    lines[1]["prompt"] = "<|im_start|>user\nSeven bridges?<|im_end|>\n<|im_start|>assistant\n"
    (quick_run / "trajectories.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return quick_run


@pytest.fixture
def two_arms(write_run: Callable[..., Path]) -> list[Path]:
    """Two seeds of one arm, and one run of another."""
    folders = []
    for name, seed, strategy, last in (
        ("saar-1", 1, "saar", 0.55),
        ("saar-2", 2, "saar", 0.65),
        ("base-1", 1, "none", 0.5),
    ):
        steps = [(step, {"val/accuracy": 0.4 if step < 2 else last, "accuracy": 0.5}) for step in range(3)]
        folder = write_run(steps, [trajectory(1, accuracy=float(seed - 1))], name)
        (folder / "config.yaml").write_text(
            f"cleaner: {{seed: {seed}, strategy: {strategy}, output_dir: {folder}}}\n"
            f"data: {{train_files: /rows-{seed}-77/train.parquet}}\n"
            f"trainer: {{default_local_dir: {folder}/checkpoints}}\n"
        )
        folders.append(folder)
    return folders
