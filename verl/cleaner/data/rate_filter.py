"""Which rows are kept, by how often a model solved them: all rules, no files."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from cleaner.data.sources import is_code
from cleaner.data.statistics import RATE_DIGITS
from cleaner.errors import ConfigError

ATTEMPTS = 8
"""Rollouts of a row in the published statistics: multiples of 1/8 have a ratio without being named."""

DEFAULT_RATIOS = "0:0,0.125:0.8,0.25:0.9,0.375:1,0.5:1,0.625:1,0.75:1,0.875:1,1:0"
"""The published filter: rows that are never or always solved go, and some of the hardest ones."""

Rates = Mapping[str, tuple[str, float]]  # uid -> data source, success rate


def parse_ratios(text: str) -> dict[float, Fraction]:
    """Ratio to keep by rate.

    Args:
        text: nine numbers, for 0/8 to 8/8; or pairs `rate:ratio`. A multiple of 1/8 that no pair names is kept whole.

    Raises:
        ConfigError: neither, or a number that is not from 0 to 1.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    eighths = [k / ATTEMPTS for k in range(ATTEMPTS + 1)]
    paired = [":" in part for part in parts]
    if not any(paired):
        if len(parts) != len(eighths):
            raise ConfigError(
                f"--success_rate_ratios: {len(parts)} numbers; give nine, for the rates 0/8 to 8/8, or pairs such as "
                "0.125:0.8"
            )
        return {rate: _share(part, part) for rate, part in zip(eighths, parts, strict=True)}
    if not all(paired):
        raise ConfigError(
            f"--success_rate_ratios: {parts[paired.index(False)]!r} is no pair rate:ratio, and others are"
        )
    ratios = dict.fromkeys(eighths, Fraction(1))
    named: set[float] = set()
    for part in parts:
        rate_text, _, ratio_text = part.partition(":")
        rate = round(float(_share(rate_text, part)), RATE_DIGITS)
        if rate in named:
            raise ConfigError(f"--success_rate_ratios: {part!r} names the rate {rate:g} a second time")
        named.add(rate)
        ratios[rate] = _share(ratio_text, part)
    return ratios


def _share(text: str, part: str) -> Fraction:
    # A fraction holds "0.29" exactly: int(100 * 0.29) of floats is 28.
    try:
        share = Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--success_rate_ratios: {part!r} is not a number") from error
    if not 0 <= share <= 1:
        raise ConfigError(f"--success_rate_ratios: {part!r} is not from 0 to 1")
    return share


@dataclass(frozen=True)
class Selection:
    """What a filter decided.

    Attributes:
        kept: uids.
        without_ratio: rate that no ratio is given for -> uids that are left out for it.
    """

    kept: frozenset[str]
    without_ratio: Mapping[float, list[str]] = field(default_factory=dict)


def select(rates: Rates, ratios: Mapping[float, Fraction], retain_code: bool, seed: int) -> Selection:
    """Keep `int(n * ratio)` of the n rows of each rate, of code and of all other rows separately.

    Which ones follows from the seed, the stratum and its uids, and not from their order.

    Args:
        rates: of the rows that there are.
        ratios: see `parse_ratios`.
        retain_code: keep every row of code with a rate above 0, whatever its ratio.
    """
    strata: dict[tuple[float, bool], list[str]] = {}
    for uid, (source, rate) in rates.items():
        strata.setdefault((rate, is_code(source)), []).append(uid)
    kept: list[str] = []
    without_ratio: dict[float, list[str]] = {}
    for (rate, code), uids in sorted(strata.items()):
        if retain_code and code and rate > 0:
            kept += uids
        elif rate not in ratios:
            without_ratio.setdefault(rate, []).extend(uids)
        else:
            count = int(len(uids) * ratios[rate])
            draw = random.Random(f"{seed}/{rate:g}/{'code' if code else 'other'}")
            kept += uids if count == len(uids) else draw.sample(sorted(uids), count)
    return Selection(frozenset(kept), without_ratio)
