"""The table of a filter: how many rows before and after, by rate, category and source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from cleaner.data.rate_filter import ATTEMPTS, Rates
from cleaner.data.sources import CATEGORIES, category

Group = tuple[str, list[tuple[str, int, int]]]  # heading, lines of label, rows before, rows after


def count_groups(rates: Rates, kept: Collection[str]) -> list[Group]:
    """Rows before and after in each group of each kind, and all of them."""
    kinds: list[tuple[str, Callable[[str, float], Any]]] = [
        ("rate", lambda source, rate: rate),
        ("category", lambda source, rate: category(source)),
        ("data_source", lambda source, rate: source),
    ]
    groups: list[Group] = []
    for heading, label_of in kinds:
        before = Counter(label_of(source, rate) for source, rate in rates.values())
        after = Counter(label_of(*rates[uid]) for uid in kept)
        labels: Iterable[Any] = sorted(before) if heading == "rate" else _by_size(before)
        if heading == "category":
            labels = [name for name in CATEGORIES if before[name]]
        shown = rate_text if heading == "rate" else str
        groups.append((heading, [(shown(label), before[label], after[label]) for label in labels]))
    return [*groups, ("all", [("all", len(rates), len(kept))])]


def rate_text(rate: float) -> str:
    """`3/8` for a multiple of 1/8, else the number."""
    eighths = rate * ATTEMPTS
    return f"{eighths:.0f}/{ATTEMPTS}" if eighths.is_integer() else f"{rate:g}"


def as_text(groups: list[Group]) -> str:
    """A table with a paragraph for each kind."""
    width = max(len(label) for heading, lines in groups for label in (heading, *(line[0] for line in lines)))
    parts = []
    for heading, lines in groups:
        rows = [
            f"{label:<{width}}  {before:>7,}  {after:>7,}  {100 * after / before:>5.1f} %"
            for label, before, after in lines
        ]
        title = [f"{heading:<{width}}  {'before':>7}  {'after':>7}    kept"] if heading != "all" else []
        parts.append("\n".join([*title, *rows]))
    return "\n\n".join(parts)


def _by_size(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda label: (-counts[label], label))
