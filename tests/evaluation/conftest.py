"""Lines of samples, true to the schema."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Line = dict[str, Any]


@pytest.fixture
def line() -> Callable[..., Line]:
    """Makes a line as the trainer writes it; keyword arguments replace fields."""

    def make(**fields: Any) -> Line:
        saar = {
            "calls": 3, "calls_ok": 2, "first_calls": 2, "first_calls_ok": 1, "final_calls": 2, "final_calls_ok": 2,
            "shallow": 1, "deep": 0, "kept": 0,
        }  # fmt: skip
        return {
            "schema": 1, "step": 0, "data_source": "aime", "id": "p", "prompt_digest": "d", "sample": 0,
            "score": 1.0, "acc": 1, "pred": "7", "left_out": None, "details": {}, "ending": "answer", "turns": 3,
            "lookahead": True, "response_tokens": 50, "seconds": 2.0, "generated_tokens": 60, "discarded_tokens": 20,
            "lookahead_tokens": 25, "tool_calls": 3, "tool_failures": {"program_error": 1}, "rollbacks": {},
            "saar": saar, "prompt": "What?", "response": "7", **fields,
        }  # fmt: skip

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines into the samples file of a run directory; returns the directory."""

    def write(lines: list[Line], run: str = "run", tail: str = "") -> Path:
        folder = tmp_path / run
        folder.mkdir(exist_ok=True)
        text = "".join(json.dumps(line) + "\n" for line in lines) + tail
        (folder / "samples.jsonl").write_text(text)
        return folder

    return write


@pytest.fixture
def problems(line: Callable[..., Line]) -> Callable[..., list[Line]]:
    """Lines of one data source from {id: accuracies of its samples}."""

    def make(accuracies: dict[str, list[int]], **fields: Any) -> list[Line]:
        return [
            line(id=name, sample=number, acc=right, **fields)
            for name, rights in accuracies.items()
            for number, right in enumerate(rights)
        ]

    return make
