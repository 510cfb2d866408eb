"""The rollback's settings, checked when they are read."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cleaner.errors import ConfigError
from cleaner.saar.outcome import INFRASTRUCTURE, MODEL_FAILURES, OK

GROUP = "cleaner.saar"

# Values that work now, and values that are named in the specification but belong to a later version.
_CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "on_exhausted": (("keep_first",), ("keep_all", "mask")),
    "lookahead": (("sequential",), ("parallel",)),
    "lookahead_context": (("cumulative", "latest"), ()),
    "similarity": (("difflib",), ("token", "ast", "json", "text")),
}


@dataclass(frozen=True)
class SaarConfig:
    """Settings of the similarity-aware adaptive rollback; defaults are the paper's (arXiv 2601.15141) where it has one.

    Attributes:
        enabled: purify trajectories. Off: the agent loop is exactly upstream verl's.
        max_retries: K >= 0, corrections sampled after a failing turn. 0 repairs nothing.
        gamma: in [0, 1]; from this similarity on only the call is replaced (shallow), below it the whole turn (deep).
        rollback_probability: in [0, 1], chance that a failing turn is rolled back; drawn from the seed.
        rollback_on: statuses (`program_error`, `timeout`, `format_error`) and exception class names that trigger.
        on_exhausted: what becomes of a turn whose K corrections all failed. `keep_first`: it stays as it was sampled.
        lookahead: `sequential`: one correction after the other.
        lookahead_context: what a correction sees: `cumulative`, all earlier attempts; `latest`, only the latest one.
        similarity: metric between failed and accepted call.
        rollback_in_validation: roll back in validation too.
        max_lookahead_tokens: most tokens that all corrections of one turn may take together; None: what the response
            length leaves.
        seed: base of the draw for `rollback_probability`, where the caller gives none.
    """

    enabled: bool = False
    max_retries: int = 3
    gamma: float = 0.5
    rollback_probability: float = 1.0
    rollback_on: tuple[str, ...] = MODEL_FAILURES
    on_exhausted: str = "keep_first"
    lookahead: str = "sequential"
    lookahead_context: str = "cumulative"
    similarity: str = "difflib"
    rollback_in_validation: bool = False
    max_lookahead_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("enabled", "rollback_in_validation"):
            if not isinstance(getattr(self, key), bool):
                raise _bad(key, getattr(self, key), "true or false")
        for key in ("max_retries", "seed"):
            _check_int(key, getattr(self, key), 0)
        if self.max_lookahead_tokens is not None:
            _check_int("max_lookahead_tokens", self.max_lookahead_tokens, 1, "or null (no limit of its own)")
        for key in ("gamma", "rollback_probability"):
            object.__setattr__(self, key, _unit_interval(key, getattr(self, key)))
        object.__setattr__(self, "rollback_on", _rollback_on(self.rollback_on))
        for key, (available, later) in _CHOICES.items():
            _check_choice(key, getattr(self, key), available, later)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any] | None) -> "SaarConfig":
        """Read the group `cleaner.saar` (a dict or an OmegaConf node); absent keys take their defaults.

        Raises:
            ConfigError: names the unknown key and the valid ones, or the bad value and its range.
        """
        known = [field.name for field in fields(cls)]
        given = {} if mapping is None else {str(key): mapping[key] for key in mapping}
        for key in given:
            if key not in known:
                raise ConfigError(
                    f"unknown key {GROUP}.{key}.{_did_you_mean(key, known)} Valid keys: {', '.join(known)}."
                )
        return cls(**given)


def _bad(key: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{GROUP}.{key}={value!r} must be {wanted}.")


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _check_int(key: str, value: object, low: int, suffix: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise _bad(key, value, f"an integer >= {low} {suffix}".rstrip())


def _unit_interval(key: str, value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0.0 <= value <= 1.0
        or math.isnan(value)
    ):
        raise _bad(key, value, "a number in [0, 1]")
    return float(value)


def _check_choice(key: str, value: object, available: tuple[str, ...], later: tuple[str, ...]) -> None:
    if value in available:
        return
    wanted = " or ".join(repr(choice) for choice in available)
    if value in later:
        raise ConfigError(f"{GROUP}.{key}={value!r} is not available yet; use {wanted}.")
    raise _bad(key, value, wanted + _did_you_mean(str(value), available))


def _rollback_on(value: object) -> tuple[str, ...]:
    key = "rollback_on"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _bad(key, value, "a list of statuses and exception class names, e.g. [timeout, NameError]")
    entries = tuple(value)
    for entry in entries:
        if entry in MODEL_FAILURES:
            continue
        if entry in (INFRASTRUCTURE, OK):
            raise ConfigError(f"{GROUP}.{key}: {entry!r} can never trigger a rollback; leave it out.")
        # Exception classes start with a capital letter; anything else is a misspelt status.
        name = entry.rpartition(".")[2] if isinstance(entry, str) else ""
        if not (name.isidentifier() and name[0].isupper()):
            raise ConfigError(
                f"{GROUP}.{key}: {entry!r} is neither a status nor an exception class."
                f"{_did_you_mean(str(entry), MODEL_FAILURES)} Statuses: {', '.join(MODEL_FAILURES)}; "
                "or class names such as NameError."
            )
    return entries
