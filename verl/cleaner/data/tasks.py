"""Problems for the quick start, drawn from reasoning-gym's generators (https://pypi.org/project/reasoning-gym/).

A *task* is a reasoning-gym generator with settings that keep questions short and worth a tool call.  Questions, answers
and verifiers are reasoning-gym's own; nothing is rewritten, so any of its verifiers can score an answer later.

The comparison of strategies has further tasks, which are ours (``own_problems``).
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from cleaner.data.own_problems import Draw, draw_coprime, draw_gcd_chain, draw_inverse_chain
from cleaner.errors import ConfigError

#: Consecutive repeats of known questions after which a task counts as used up.
_MAX_REPEATS = 2000


@dataclass(frozen=True)
class Task:
    """A generator of problems and the settings we run it with.

    ``name`` is reasoning-gym's dataset name; ``settings`` are passed to its configuration class.
    ``draw``: makes a problem without reasoning-gym, whose answer is compared as text.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    draw: Draw | None = None

    @property
    def data_source(self) -> str:
        """The row's ``data_source``, for example ``reasoning_gym/gcd``."""
        return f"own/{self.name}" if self.draw else f"reasoning_gym/{self.name}"

    def entry(self, seed: int) -> dict[str, Any]:
        """A problem as reasoning-gym's datasets hold them: ``question``, ``answer``, ``metadata``."""
        if self.draw is not None:
            return self.draw(random.Random(seed))
        import reasoning_gym

        dataset = reasoning_gym.create_dataset(self.name, seed=seed, size=1, **self.settings)
        return dict(dataset[0])


@dataclass(frozen=True)
class Problem:
    """One question with its reference answer and the metadata that reasoning-gym's verifier may need."""

    task: str
    question: str
    answer: str
    metadata: dict[str, Any]

    @property
    def data_source(self) -> str:
        """The row's ``data_source``, for example ``reasoning_gym/gcd``."""
        return ALL_TASKS[self.task].data_source


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("gcd", {"min_value": 10, "max_value": 99}),
        Task("lcm", {"min_value": 4, "max_value": 99}),
        Task("chain_sum", {"min_terms": 3, "max_terms": 3, "min_digits": 2, "max_digits": 2}),
        Task("products", {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2}),
        Task("leg_counting", {"min_animals": 2, "max_animals": 2, "max_instances": 15}),
        Task("count_bits", {"min_n": 100, "max_n": 9999}),
    )
}
"""The quick start's tasks by name."""

COMPARISON_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("coprime", draw=draw_coprime),
        Task("gcd_chain", draw=draw_gcd_chain),
        Task("inverse_chain", draw=draw_inverse_chain),
    )
}
"""Further tasks of the comparison of strategies, by name."""

ALL_TASKS: dict[str, Task] = {**TASKS, **COMPARISON_TASKS}


def select_tasks(names: Sequence[str] | None) -> list[Task]:
    """The tasks with these names, in order; the quick start's for ``None``.

    Raises ``ConfigError`` for an empty selection, an unknown name (with a suggestion) or a name given twice.
    """
    if names is None:
        return list(TASKS.values())
    if not names:
        raise ConfigError(f"no task selected; known tasks: {', '.join(ALL_TASKS)}")
    for name in names:
        if name not in ALL_TASKS:
            close = difflib.get_close_matches(name, ALL_TASKS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown task {name!r}.{hint} Known tasks: {', '.join(ALL_TASKS)}")
        if names.count(name) > 1:
            raise ConfigError(f"task {name!r} is selected more than once")
    return [ALL_TASKS[name] for name in names]


def stream(task: Task, seed: int | str, known: AbstractSet[str] = frozenset()) -> Iterator[Problem]:
    """Endless problems of one task with distinct questions, none of which is in ``known``.

    The same arguments give the same sequence.  Raises ``ConfigError`` when the generator has no new question left.
    """
    seen = set(known)
    # reasoning-gym derives item i from seed + i, so neighbouring seeds overlap: spread them with a generator.
    rng = random.Random(f"{task.name}/{seed}")
    repeats = 0
    while True:
        entry = task.entry(rng.randrange(2**40))
        question = entry["question"].strip()
        if question in seen:
            repeats += 1
            if repeats >= _MAX_REPEATS:
                raise ConfigError(
                    f"task {task.name!r} has no more new questions after {len(seen)} "
                    f"(settings {task.settings}); ask for fewer rows or add tasks"
                )
            continue
        repeats = 0
        seen.add(question)
        yield Problem(task.name, question, str(entry["answer"]).strip(), dict(entry["metadata"]))


def draw(tasks: Sequence[Task], count: int, seed: int | str, known: Iterable[str] = ()) -> list[Problem]:
    """``count`` problems, the tasks in equal shares (difference at most one), in seeded random order.

    No two have the same question, and none of the questions is in ``known``.
    """
    if count < 0:
        raise ConfigError(f"number of problems must be 0 or more, got {count}")
    excluded = frozenset(known)
    streams = [stream(task, seed, excluded) for task in tasks]
    problems = [next(streams[i % len(streams)]) for i in range(count)]
    random.Random(f"order/{seed}").shuffle(problems)
    return problems


def draw_splits(
    tasks: Sequence[Task], train: int, val: int, seed: int
) -> tuple[list[Problem], list[Problem]]:
    """Training and validation problems without a question in common.

    Validation is drawn first and depends on ``val`` and ``seed`` only, so that runs with more or fewer training rows
    are measured on the same questions.
    """
    # Streams of their own: a plain number is the cold start's, whose questions must not be the validation's.
    val_problems = draw(tasks, val, f"val/{seed}")
    train_problems = draw(tasks, train, f"train/{seed}", known=(p.question for p in val_problems))
    return train_problems, val_problems
