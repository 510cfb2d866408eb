"""Conversations with the real tool: one driver, for the teacher that writes the training data and for the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cleaner.coldstart.chat_format import parse_turn
from cleaner.data.make_rows import SYSTEM_PROMPT
from cleaner.data.tasks import Problem
from cleaner.rewards.quickstart import compute_score


@dataclass(frozen=True)
class Observation:
    """What the tool answered: the text the model sees, and whether the program ran without an error."""

    text: str
    ok: bool


class Execute(Protocol):
    """Runs programs for real; observations come in the order of the programs."""

    def __call__(self, programs: Sequence[str], /) -> list[Observation]: ...


class Policy(Protocol):
    """Writes the next assistant turn (text without the turn-end token) of each conversation."""

    def __call__(self, episodes: Sequence[Episode], /) -> list[str]: ...


@dataclass
class Episode:
    """One conversation about one problem; ``calls`` holds True for every call that succeeded, in order."""

    problem: Problem
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: list[bool] = field(default_factory=list)
    malformed: int = 0
    finished: bool = False
    final_text: str | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            self.messages = [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": self.problem.question},
            ]

    @property
    def last_observation(self) -> str | None:
        """Text of the latest tool result, or None before the first one."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "tool"), None)

    @property
    def is_right(self) -> bool:
        """Whether the final answer earns the reward."""
        if self.final_text is None:
            return False
        score = compute_score(self.problem.data_source, self.final_text, self.problem.answer)
        return bool(score["acc"])


def play(policy: Policy, problems: Sequence[Problem], execute: Execute, max_calls: int = 4) -> list[Episode]:
    """Let ``policy`` work on each problem until it answers, writes a malformed call, or has made ``max_calls`` calls
    and one more turn."""
    episodes = [Episode(problem) for problem in problems]
    for turn in range(max_calls + 1):
        active = [episode for episode in episodes if not episode.finished]
        if not active:
            break
        waiting: list[tuple[Episode, str]] = []
        for episode, text in zip(active, policy(active), strict=True):
            episode.messages.append({"role": "assistant", "content": text})
            parsed = parse_turn(text)
            if parsed.code is not None and turn < max_calls:
                waiting.append((episode, parsed.code))
                continue
            episode.finished = True
            if parsed.is_final:
                episode.final_text = text
            elif parsed.fault is not None:
                episode.malformed += 1
        for (episode, _), observation in zip(waiting, execute([code for _, code in waiting]), strict=True):
            episode.messages.append({"role": "tool", "content": observation.text})
            episode.calls.append(observation.ok)
    return episodes


def statistics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Behaviour of a policy; shares in [0, 1].

    ``repair_rate``: calls right after a failed call that succeed; ``recovered``: episodes with a failed first call and
    a successful call later; ``valid_format``: episodes without a malformed call; ``answered``: final turns with a box.
    """
    count = max(1, len(episodes))
    called = [e for e in episodes if e.calls]
    failed_first = [e for e in called if not e.calls[0]]
    attempts = [
        after for e in called for before, after in zip(e.calls, e.calls[1:], strict=False) if not before
    ]
    answered = [e for e in episodes if e.final_text is not None and "\\boxed{" in e.final_text]
    clean = [e for e in called if all(e.calls)]
    mended = [e for e in called if not all(e.calls)]
    return {
        "episodes": float(len(episodes)),
        "accuracy": sum(e.is_right for e in episodes) / count,
        "accuracy_without_failure": sum(e.is_right for e in clean) / max(1, len(clean)),
        "accuracy_with_failure": sum(e.is_right for e in mended) / max(1, len(mended)),
        "used_tool": len(called) / count,
        "first_call_failure": len(failed_first) / max(1, len(called)),
        "repair_rate": sum(attempts) / max(1, len(attempts)),
        "recovered": sum(any(e.calls) for e in failed_first) / max(1, len(failed_first)),
        "valid_format": sum(e.malformed == 0 for e in episodes) / count,
        "answered": len(answered) / count,
        "calls": sum(len(e.calls) for e in episodes) / count,
    }
