"""How often a model solved each row: one JSON object a line.

`{"uid", "data_source", "successes", "attempts", "success_rate", "avg_score", "keep"}`; `keep` is false where every
attempt succeeded: such a row teaches nothing. `collect_pass_rates.sh` writes such a file, `data_filter.sh` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleaner.errors import ConfigError

# Rates that differ by less are one: a third has no exact decimal.
RATE_DIGITS = 6


@dataclass(frozen=True)
class PassRate:
    """A line of the file. `success_rate` and `avg_score` are means over `attempts`."""

    uid: str
    data_source: str
    successes: int
    attempts: int
    success_rate: float
    avg_score: float
    keep: bool

    def line(self) -> str:
        """The line, without its end."""
        return json.dumps(asdict(self), ensure_ascii=False)


def read_rates(path: Path) -> dict[str, tuple[str, float]]:
    """Data source and success rate, rounded to `RATE_DIGITS`, by uid, in the order of the file.

    Raises:
        ConfigError: no such file, nothing in it, a line that cannot be used, or one uid twice: file, line and key.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        # One call of the parser for all lines: a third of the time of one call a line.
        values = json.loads(b"[" + b",".join(lines) + b"]")
        if len(values) != len(lines):
            raise ValueError
    except ValueError:
        values = [_parsed(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    rates: dict[str, tuple[str, float]] = {}
    for number, value in enumerate(values, start=1):
        try:
            uid, source, rate = value["uid"], value["data_source"], value["success_rate"]
            usable = (
                type(uid) in (str, int)
                and type(source) is str
                and type(rate) in (float, int)
                and 0 <= rate <= 1
            )
        except (KeyError, TypeError):
            usable = False
        if not usable:
            raise ConfigError(f"{path}, line {number}: {_fault(value)}")
        key = str(uid)
        if key in rates:
            raise ConfigError(
                f"{path}, line {number}: uid {key!r} was there before. Keep one line of each uid."
            )
        rates[key] = source, round(rate, RATE_DIGITS)
    if not rates:
        raise ConfigError(f"{path}: holds no line")
    return rates


def write_rates(rates: Iterable[PassRate], path: Path) -> int:
    """Write a file, all or nothing; returns the number of its lines.

    Raises:
        OSError: it cannot be written.
    """
    count = 0
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for rate in rates:
                file.write(rate.line() + "\n")
                count += 1
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _parsed(path: Path, number: int, line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ConfigError(
            f"{path}, line {number}: not JSON ({error}). Take the line out, or collect again."
        ) from error


def _fault(value: Any) -> str:
    if not isinstance(value, dict):
        return f"must be an object, got {value!r:.60}"
    for key in ("uid", "data_source", "success_rate"):
        if key not in value:
            return f"no key {key!r} (it has: {', '.join(value) or 'nothing'})"
    if type(value["uid"]) not in (str, int):
        return f"'uid' must be text or a whole number, got {value['uid']!r:.60}"
    if not isinstance(value["data_source"], str):
        return f"'data_source' must be text, got {value['data_source']!r:.60}"
    rate = value["success_rate"]
    number = isinstance(rate, int | float) and not isinstance(rate, bool) and math.isfinite(rate)
    return f"'success_rate' must be {'from 0 to 1' if number else 'a number'}, got {rate!r:.60}"
