"""Reads `samples.jsonl` and says exactly which line is wrong. `docs/evaluation.md` documents the fields."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cleaner.errors import ConfigError

SAMPLES_FILE = "samples.jsonl"
_NUMBER = (int, float)
# Key -> types of a usable value. `None` stands for null.
_REQUIRED: dict[str, tuple[type | None, ...]] = {
    "data_source": (str,),
    "id": (str, int),
    "sample": (int,),
    "acc": (int, float, bool, None),
}
_OPTIONAL: dict[str, tuple[type | None, ...]] = {
    "step": (int,),
    "prompt_digest": (str,),
    "score": (*_NUMBER, None),
    "left_out": (str, None),
    "ending": (str,),
    "turns": (int,),
    "lookahead": (bool,),
    "response": (str,),
    "response_tokens": (int,),
    "generated_tokens": (int,),
    "discarded_tokens": (int,),
    "seconds": _NUMBER,
    "saar": (dict, None),
}
_NAMES: dict[type | None, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    None: "null",
}
# Counts that a figure is made of.
_COUNTS = (
    "calls", "calls_ok", "first_calls", "first_calls_ok", "final_calls", "final_calls_ok",
    "shallow", "deep", "kept",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One sample; its fields are those of a line.

    Attributes:
        acc: 0 or 1; None where it is left out.
        pred: the answer that was taken from the response, as text; None where there is none.
        left_out: why it is left out of the scores; None: it is not.
        saar: counts of tool calls and rollbacks; empty where the agent loop tells none.
        lookahead: whether failing calls were rolled back.
    """

    data_source: str
    id: str
    prompt_digest: str
    number: int
    step: int
    acc: int | None
    score: float | None
    pred: str | None
    left_out: str | None
    ending: str | None
    turns: int | None
    lookahead: bool
    response: str | None
    response_tokens: int | None
    generated_tokens: int | None
    discarded_tokens: int | None
    seconds: float | None
    saar: Mapping[str, Any]

    @property
    def used_tool(self) -> bool:
        return bool(self.saar.get("final_calls", 0) or self.saar.get("calls", 0))


@dataclass(frozen=True)
class Evaluation:
    """The samples of one validation of one run.

    Attributes:
        name: what tables call it.
        problems: data source -> problem -> its samples by number. A problem is named by its id, and by its prompt's
            digest too where several prompts have the id.
        warnings: what a reader of the figures should know.
    """

    name: str
    path: Path
    step: int
    problems: Mapping[str, Mapping[str, list[Sample]]]
    warnings: tuple[str, ...]

    @property
    def samples(self) -> Iterator[Sample]:
        for problems in self.problems.values():
            for samples in problems.values():
                yield from samples


def read_evaluation(path: str | Path, step: int | None = None, name: str | None = None) -> Evaluation:
    """Read a run directory or a file of samples.

    Args:
        step: the validation of this training step; None: the last one in the file.
        name: by default that of the run directory.

    Raises:
        ConfigError: no such file, nothing in it, no such step, or a line that cannot be used: file, line and key.
    """
    file = _file_of(Path(path).expanduser())
    found: dict[tuple[str, str, str, int, int], Sample] = {}
    repeated = 0
    for sample in _samples(file):
        key = (sample.data_source, sample.id, sample.prompt_digest, sample.number, sample.step)
        # The later one counts: a problem is sampled again where a sample of it failed.
        repeated += key in found
        found[key] = sample
    if not found:
        raise ConfigError(f"{file}: holds no sample. Has the evaluation begun?")
    steps = sorted({sample.step for sample in found.values()})
    step = steps[-1] if step is None else step
    chosen = [sample for sample in found.values() if sample.step == step]
    if not chosen:
        raise ConfigError(f"{file}: no sample of step {step}; there are steps {', '.join(map(str, steps))}.")
    warnings = [f"{repeated} samples were made twice; the later ones count"] if repeated else []
    if len(steps) > 1:
        warnings.append(f"step {step} of {', '.join(map(str, steps))}; choose with --step")
    problems = _by_problem(chosen)
    most = max(len(group) for group in _groups(problems))
    short = sum(len(group) < most for group in _groups(problems))
    if short:
        warnings.append(
            f"{short} problems have fewer than {most} samples: failed trajectories, or not finished"
        )
    return Evaluation(name or _name_of(file), file, step, problems, tuple(warnings))


def _groups(problems: Mapping[str, Mapping[str, list[Sample]]]) -> Iterator[list[Sample]]:
    for groups in problems.values():
        yield from groups.values()


def _by_problem(samples: list[Sample]) -> dict[str, dict[str, list[Sample]]]:
    digests: dict[tuple[str, str], set[str]] = {}
    for sample in samples:
        digests.setdefault((sample.data_source, sample.id), set()).add(sample.prompt_digest)
    problems: dict[str, dict[str, list[Sample]]] = {}
    for sample in sorted(samples, key=lambda s: (s.data_source, s.id, s.prompt_digest, s.number)):
        alone = len(digests[sample.data_source, sample.id]) == 1
        label = sample.id if alone else f"{sample.id}~{sample.prompt_digest}"
        problems.setdefault(sample.data_source, {}).setdefault(label, []).append(sample)
    return problems


def _file_of(path: Path) -> Path:
    if path.is_dir():
        file = path / SAMPLES_FILE
        if not file.is_file():
            raise ConfigError(
                f"{path}: has no {SAMPLES_FILE}. Evaluate with trainer.val_only=true, or train with "
                "cleaner.save_samples=true."
            )
        return file
    if not path.is_file():
        raise ConfigError(f"{path}: no such file or directory. Give a run directory or a {SAMPLES_FILE}.")
    return path


def _name_of(file: Path) -> str:
    return file.absolute().parent.name if file.name == SAMPLES_FILE else file.stem


def _samples(file: Path) -> Iterator[Sample]:
    try:
        with file.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                if text.strip():
                    sample = _parsed(file, number, text)
                    if sample is not None:
                        yield sample
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror or error})") from error


def _parsed(file: Path, number: int, text: bytes) -> Sample | None:
    """The sample of a line; None for a last line that is half written."""
    where = f"{file}, line {number}"
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.endswith(b"\n"):
            return None
        raise ConfigError(f"{where}: not JSON ({error}). Remove the line, or evaluate again.") from error
    if not isinstance(line, dict):
        raise ConfigError(f"{where}: not an object.")
    if "gts" in line and "output" in line:
        raise ConfigError(
            f"{where}: this is verl's own dump (trainer.validation_data_dir), which names no rows. Give the "
            f"{SAMPLES_FILE} in cleaner.output_dir."
        )
    for key in _REQUIRED:
        if key not in line:
            raise ConfigError(f"{where}: no key {key!r}. Keys: {', '.join(map(str, line)) or 'none'}.")
    for key, types in {**_REQUIRED, **_OPTIONAL}.items():
        if key in line and not _fits(line[key], types):
            raise ConfigError(f"{where}, key {key!r}: must be {_named(types)}, got {_shown(line[key])}.")
    left_out = line.get("left_out")
    if left_out is None:
        _check_accuracy(where, line["acc"])
    saar = line.get("saar") or {}
    for key in _COUNTS:
        if key in saar and not _fits(saar[key], (int,)):
            raise ConfigError(f"{where}, key 'saar.{key}': must be a whole number, got {_shown(saar[key])}.")
    return Sample(
        data_source=line["data_source"],
        id=str(line["id"]),
        prompt_digest=line.get("prompt_digest", ""),
        number=line["sample"],
        step=line.get("step", 0),
        acc=None if left_out is not None else int(line["acc"]),
        score=line.get("score"),
        pred=_answer(line.get("pred")),
        left_out=left_out,
        ending=line.get("ending"),
        turns=line.get("turns"),
        lookahead=line.get("lookahead", False),
        response=line.get("response"),
        response_tokens=line.get("response_tokens"),
        generated_tokens=line.get("generated_tokens"),
        discarded_tokens=line.get("discarded_tokens"),
        seconds=line.get("seconds"),
        saar=saar,
    )


def _check_accuracy(where: str, value: Any) -> None:
    if value is None:
        raise ConfigError(
            f"{where}, key 'acc': is null. The reward function must return `acc` (true only for a right answer); a "
            "sample that could not be scored says so in `left_out`."
        )
    if value not in (0, 1):
        raise ConfigError(
            f"{where}, key 'acc': must be 0 or 1, got {_shown(value)}. A share of passed tests is a score, not an "
            "accuracy."
        )


def _answer(value: Any) -> str | None:
    return None if value is None or value == "" else value if isinstance(value, str) else json.dumps(value)


def _fits(value: Any, types: tuple[type | None, ...]) -> bool:
    if value is None:
        return None in types
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, tuple(kind for kind in types if kind is not None))


def _named(types: tuple[type | None, ...]) -> str:
    shown = [_NAMES[kind] for kind in types if not (kind is int and float in types)]
    return " or ".join(shown)


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
