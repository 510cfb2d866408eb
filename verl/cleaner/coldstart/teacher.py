"""The noisy teacher: solves problems with the tool, slips often, reads the error, repairs about half the time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from cleaner.coldstart.chat_format import call_text
from cleaner.coldstart.episodes import Episode
from cleaner.coldstart.slips import dead_ends, slip
from cleaner.coldstart.solutions import Program, next_programs

_FINAL = ("The answer is {}.", "So the answer is {}.")
_FIX = ("I fix the error.", "I correct that.")
_OTHER_WAY = ("I try another way.",)


@dataclass(frozen=True)
class Habits:
    """How the teacher behaves; probabilities in [0, 1].

    ``first_failure``: the first program is a failing one.  ``repair``: the program after an error works.
    ``dead_end``: a failing program is a dead end rather than a slip.  ``same_again``: a failing repair repeats the same
    program.  ``other_way``: a working repair takes another approach.  ``no_tool``: answers without the tool.
    ``give_up``: guesses an answer after an error instead of calling again; it always does after ``max_calls`` calls.
    In a problem of several calls all this holds for each of them.
    """

    first_failure: float = 0.6
    repair: float = 0.5
    dead_end: float = 0.25
    same_again: float = 0.15
    other_way: float = 0.35
    no_tool: float = 0.04
    give_up: float = 0.12
    max_calls: int = 4


@dataclass
class _Plan:
    """What the teacher remembers of its own last call: the program it meant, and the one it wrote."""

    meant: Program | None
    wrote: str


class Teacher:
    """A ``Policy`` (see ``episodes``) whose choices depend on the seed only.  One instance for one set of episodes."""

    def __init__(self, habits: Habits, seed: int) -> None:
        self._habits = habits
        self._rng = random.Random(seed)
        self._plans: dict[int, _Plan] = {}

    def __call__(self, episodes: Sequence[Episode], /) -> list[str]:
        """The next turn of each conversation."""
        return [self._turn(episode) for episode in episodes]

    def _turn(self, episode: Episode) -> str:
        rng, habits, problem = self._rng, self._habits, episode.problem
        if not episode.calls:
            if rng.random() < habits.no_tool:
                return f"I can do this without code: {_box(problem.answer)}."
            return self._call(episode, fails=rng.random() < habits.first_failure)
        if episode.calls[-1] and not self._programs(episode):
            return rng.choice(_FINAL).format(_box(str(episode.last_observation)))
        plan = self._plans[id(episode)]
        # A right program that fails all the same has found something out.
        goes_on = episode.calls[-1] or (plan.meant is not None and plan.wrote == plan.meant.code)
        if goes_on and len(episode.calls) < habits.max_calls:
            return self._call(episode, fails=rng.random() < habits.first_failure)
        if len(episode.calls) >= habits.max_calls or rng.random() < habits.give_up:
            return f"I could not run it. My guess is {_box(_guess(problem.answer, rng))}."
        return self._retry(episode)

    def _retry(self, episode: Episode) -> str:
        rng, habits = self._rng, self._habits
        plan = self._plans[id(episode)]
        if rng.random() < habits.repair:
            if plan.meant is None or rng.random() < habits.other_way:
                others = [p for p in self._programs(episode) if p != plan.meant]
                return self._write(episode, rng.choice(others), None, rng.choice(_OTHER_WAY))
            return self._write(episode, plan.meant, None, rng.choice(_FIX))
        if rng.random() < habits.same_again:
            return self._write(episode, plan.meant, plan.wrote, rng.choice(_FIX))
        return self._call(episode, fails=True, opening=rng.choice(_FIX + _OTHER_WAY))

    def _call(self, episode: Episode, fails: bool, opening: str | None = None) -> str:
        rng = self._rng
        # A dead end is another way to the problem's first number.
        if fails and not any(episode.calls) and rng.random() < self._habits.dead_end:
            program = rng.choice(dead_ends(episode.problem))
            return self._write(episode, None, program.code, opening or program.reasoning)
        program = rng.choice(self._programs(episode))
        wrote = slip(program.code, rng)[1] if fails else program.code
        return self._write(episode, program, wrote, opening or program.reasoning)

    def _programs(self, episode: Episode) -> list[Program]:
        texts = [message["content"] for message in episode.messages if message["role"] == "tool"]
        return next_programs(episode.problem, list(zip(episode.calls, texts, strict=True)))

    def _write(self, episode: Episode, meant: Program | None, wrote: str | None, reasoning: str) -> str:
        code = wrote if wrote is not None else meant.code if meant is not None else ""
        self._plans[id(episode)] = _Plan(meant, code)
        return call_text(reasoning, code)


def _box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def _guess(answer: str, rng: random.Random) -> str:
    """A wrong guess of the right kind and size."""
    if answer in ("True", "False"):
        return "False" if answer == "True" else "True"
    value = int(answer)
    spread = max(2, abs(value) // 4)
    return str(value + rng.choice((-1, 1)) * rng.randint(1, spread))


def check_habits(habits: Habits) -> None:
    """Raise ``ValueError`` naming the first probability outside [0, 1]."""
    for name, value in vars(habits).items():
        if name != "max_calls" and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
