"""Make a cold-start checkpoint: teacher conversations with real execution, fine-tuning, measurement, one folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from cleaner.coldstart import smollm2
from cleaner.coldstart.copying import copy_examples, emphasise, number_tokens
from cleaner.coldstart.encoding import Example, encode, render
from cleaner.coldstart.episodes import Episode, Execute, play, statistics
from cleaner.coldstart.sampler import ModelPolicy
from cleaner.coldstart.sft import SftSettings, train
from cleaner.coldstart.teacher import Habits, Teacher
from cleaner.coldstart.tiny import MAX_LENGTH, VOCABULARY, build_tiny_model
from cleaner.coldstart.tokenizer import train_tokenizer
from cleaner.data.tasks import Problem, draw, select_tasks

MODELS = ("tiny", "smollm2")

#: Conversations that the tiny model's tokenizer learns from.
_TOKENIZER_TEXTS = 3000
#: Steps of the tiny model's copying warm-up (one minute on a free core).
_COPY_STEPS = 400
#: Weight of number tokens in the tiny model's loss: few tokens, but every answer hangs on them.
_NUMBER_WEIGHT = 4


@dataclass(frozen=True)
class Plan:
    """What to make.

    ``minutes``: fine-tuning time limit.  ``steps``: optimizer steps, which make the result independent of the
    machine's speed as long as the time suffices.  ``traces``: teacher conversations.  ``evaluate``: problems of the
    measurement, 0 for none.  ``cache``: folder for the converted SmolLM2 (used by that model only).  ``start``: folder
    of a checkpoint to go on from.  ``tasks``: names of tasks, the quick start's for None.
    """

    model: str
    minutes: float
    seed: int = 0
    steps: int | None = None
    traces: int = 8000
    evaluate: int = 240
    cache: Path | None = None
    habits: Habits = field(default_factory=Habits)
    start: Path | None = None
    tasks: tuple[str, ...] | None = None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _start_model(plan: Plan, traces: Sequence[Episode]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if plan.start is not None:
        model = AutoModelForCausalLM.from_pretrained(plan.start, dtype=torch.float32)
        return model, AutoTokenizer.from_pretrained(plan.start)
    if plan.model == "smollm2":
        assert plan.cache is not None
        return smollm2.load(plan.cache)
    plain = train_tokenizer(
        [], vocabulary=500, max_length=MAX_LENGTH
    )  # only its chat template is needed here
    texts = [render(plain, episode.messages) for episode in traces[:_TOKENIZER_TEXTS]]
    tokenizer = train_tokenizer(texts, VOCABULARY, MAX_LENGTH)
    return build_tiny_model(tokenizer, plan.seed), tokenizer


def _train_tiny(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], plan: Plan
) -> dict[str, float]:
    """Teach a model to converse; a new one learns to copy numbers first."""
    if plan.start is None:
        copying = SftSettings(
            plan.minutes / 4, lr=8e-3, batch=64, micro=64, steps=_COPY_STEPS, seed=plan.seed
        )
        train(model, copy_examples(tokenizer, 64 * _COPY_STEPS, plan.seed), copying)
    numbers = set(number_tokens(tokenizer))
    weighted = [emphasise(example, numbers, _NUMBER_WEIGHT) for example in examples]
    settings = SftSettings(
        plan.minutes,
        lr=5e-3 if plan.start is None else 2e-3,
        batch=16,
        micro=4,
        steps=plan.steps,
        seed=plan.seed,
    )
    return train(model, weighted, settings)


def _train_large(model: PreTrainedModel, examples: Sequence[Example], plan: Plan) -> dict[str, float]:
    """Teach a pretrained model the format and the habits, in few steps."""
    settings = SftSettings(
        plan.minutes, lr=3e-4, batch=4, micro=4, warmup=5, steps=plan.steps, seed=plan.seed, bfloat16=True
    )
    return train(model, examples, settings)


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    execute: Execute,
    seed: int,
    max_calls: int = 4,
) -> dict[str, Any]:
    """Behaviour at temperature 1 with real execution: overall statistics, and two of them by task."""
    episodes = play(ModelPolicy(model, tokenizer, seed), problems, execute, max_calls)
    by_task = {}
    for name in dict.fromkeys(problem.task for problem in problems):
        own = statistics([e for e in episodes if e.problem.task == name])
        by_task[name] = {key: round(own[key], 3) for key in ("accuracy", "first_call_failure")}
    return {**{key: round(value, 4) for key, value in statistics(episodes).items()}, "by_task": by_task}


def make(plan: Plan, out: Path, execute: Execute) -> dict[str, Any]:
    """Make the checkpoint in ``out`` (replaced as a whole); returns the report, also stored as ``coldstart.json``."""
    tasks = select_tasks(plan.tasks)
    began = time.monotonic()
    problems = draw(tasks, plan.traces, plan.seed)
    traces = play(Teacher(plan.habits, plan.seed), problems, execute, plan.habits.max_calls)
    _say(f"{len(traces)} conversations written in {time.monotonic() - began:.0f} s")
    model, tokenizer = _start_model(plan, traces)
    examples = [encode(tokenizer, episode.messages) for episode in traces]
    if plan.model == "tiny":
        training = _train_tiny(model, tokenizer, examples, plan)
    else:
        training = _train_large(model, examples, plan)
    unseen = draw(tasks, plan.evaluate, plan.seed + 1, known=(problem.question for problem in problems))
    folders = {"cache": None, "start": None if plan.start is None else plan.start.name}
    report = {
        "plan": {**asdict(plan), **folders},
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "longest_conversation_tokens": max(len(example.ids) for example in examples),
        "teacher": {key: round(value, 4) for key, value in statistics(traces).items()},
        "training": {key: round(value, 4) for key, value in training.items()},
        "evaluation": (
            measure(model, tokenizer, unseen, execute, plan.seed, plan.habits.max_calls) if unseen else None
        ),
    }
    _save(model, tokenizer, report, out)
    return report


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, report: dict[str, Any], out: Path
) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "coldstart.json").write_text(json.dumps(report, indent=2) + "\n")
        for path in (draft, *draft.iterdir()):
            os.chmod(path, 0o755 if path.is_dir() else 0o644)
        if out.exists():
            shutil.rmtree(out)
        os.replace(draft, out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
