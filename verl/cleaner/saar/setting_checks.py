"""Checks of single settings; each failure names the key, the bad value and what would be right."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from cleaner.errors import ConfigError


def bad_value(path: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{path}={value!r} must be {wanted}.")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_bool(path: str, value: object) -> None:
    if not isinstance(value, bool):
        raise bad_value(path, value, "true or false")


def check_int(path: str, value: object, low: int, suffix: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise bad_value(path, value, f"an integer >= {low} {suffix}".rstrip())


def number_in(path: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """`value` as a float in [low, high], or (low, high] with `above`."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or math.isnan(value) or not low <= value <= high or (above and value == low):  # type: ignore[arg-type,operator]
        span = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"{'>' if above else '>='} {low:g}"
        raise bad_value(path, value, f"a number {span}")
    return float(value)  # type: ignore[arg-type]


def check_choice(path: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise bad_value(
            path, value, " or ".join(map(repr, choices)) + "." + did_you_mean(str(value), choices)
        )


def known_keys(cls: type, path: str, mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keys of `mapping` (a dict or an OmegaConf node) as keyword arguments of the dataclass `cls`.

    Raises:
        ConfigError: names the unknown key and the valid ones.
    """
    known = [item.name for item in fields(cls)]
    given = {} if mapping is None else {str(key): mapping[key] for key in mapping}
    for key in given:
        if key not in known:
            raise ConfigError(
                f"unknown key {path}.{key}.{did_you_mean(key, known)} Valid keys: {', '.join(known)}."
            )
    return given
