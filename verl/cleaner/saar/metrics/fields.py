"""How alike two structured arguments are (REST calls, searches), for the metric `json`.

Arguments are taken apart into leaves: a path of keys, and a scalar. Order of keys does not count, nor does order in a
list, whose elements share a path. Leaves of both sides are paired, and the similarity is Dice's: the pairs' credit
times the weight of both leaves, over the weight of all leaves.

credit    pair
1         same path, equal value
0.2 to 1  same path, another value: 0.2 for the path, the rest by the likeness of the values
0.5       equal value under different paths (a misspelt key, a scalar where a list was wanted)

Two strings are as alike as their words in order, or as their characters where neither holds white space; two numbers
are as alike as they are near. The path alone gives little: two searches that share nothing but the argument's name are
not alike. A long value says more than a short one, and defaults must not drown the query, so a leaf weighs one more
than the number of binary digits of its length. None of these figures comes from the paper, which compares code only.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cleaner.saar.metrics.sequences import Budget, Similarity, ratio
from cleaner.saar.metrics.words import words

_PATH = 0.2
_MOVED = 0.5
_OTHER_TYPE = 0.5
_ELEMENT = None  # the step from a list to its elements; no JSON key

# (kind, value): 1 and 1.0 are equal, 1 and true are not.
Leaf = tuple[str, Any]
Leaves = dict[int, list[Leaf]]


def field_similarity(failed: Sequence[Any], accepted: Sequence[Any]) -> Similarity:
    """Similarity of the parsed arguments of calls; call i of one side is compared with call i of the other.

    Not symmetric in how strings are compared. Inexact: a lower bound, because the budget was spent.

    Time: 0.8 s at most for 200,000 characters in each.
    """
    paths: dict[tuple[int, Any], int] = {}
    left, right = _leaves(failed, paths), _leaves(accepted, paths)
    total = _weight_of(left) + _weight_of(right)
    if total == 0:
        return Similarity(1.0)
    budget = Budget()
    credit: float = 0  # whole while all pairs are equal, so that identical arguments give exactly 1
    exact = True
    for path in [path for path in left if path in right]:
        same, left[path], right[path] = _without_common(left[path], right[path])
        credit += 2 * same
        for one, other in zip(left[path], right[path], strict=False):
            alike = _likeness(one, other, budget)
            exact = exact and alike.exact
            credit += (_PATH + (1 - _PATH) * alike.value) * (_weight(one) + _weight(other))
        paired = min(len(left[path]), len(right[path]))
        del left[path][:paired], right[path][:paired]
    rest = [[leaf for leaves in side.values() for leaf in leaves] for side in (left, right)]
    moved, _, _ = _without_common(rest[0], rest[1])
    return Similarity(min(1.0, (credit + _MOVED * 2 * moved) / total), exact)


def _leaves(values: Sequence[Any], paths: dict[tuple[int, Any], int]) -> Leaves:
    """Leaves by path. A path is a number, given in `paths` to (number of the path before, last step)."""
    found: Leaves = {}
    pending = [(paths.setdefault((-1, index), len(paths)), value) for index, value in enumerate(values)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and value:
            pending += [(paths.setdefault((path, key), len(paths)), inner) for key, inner in value.items()]
        elif isinstance(value, list) and value:
            element = paths.setdefault((path, _ELEMENT), len(paths))
            pending += [(element, inner) for inner in reversed(value)]
        else:
            found.setdefault(path, []).append(_leaf(value))
    return found


def _leaf(value: Any) -> Leaf:
    if isinstance(value, bool) or value is None:
        return "word", value
    if isinstance(value, int | float):
        return "number", int(value) if isinstance(value, float) and value.is_integer() else value
    return ("text", value) if isinstance(value, str) else ("empty", str(value))


def _without_common(one: list[Leaf], other: list[Leaf]) -> tuple[int, list[Leaf], list[Leaf]]:
    """The weight of the equal leaves, counted once, and both lists without them."""
    common = Counter(one) & Counter(other)
    return (
        sum(_weight(leaf) * count for leaf, count in common.items()),
        _minus(one, common),
        _minus(other, common),
    )


def _minus(leaves: list[Leaf], common: Counter[Leaf]) -> list[Leaf]:
    taken = Counter(common)
    kept = []
    for leaf in leaves:
        if taken[leaf] > 0:
            taken[leaf] -= 1
        else:
            kept.append(leaf)
    return kept


def _weight_of(leaves: Leaves) -> int:
    return sum(_weight(leaf) for found in leaves.values() for leaf in found)


def _weight(leaf: Leaf) -> int:
    return 1 + len(_text(leaf)).bit_length()


def _text(leaf: Leaf) -> str:
    return leaf[1] if isinstance(leaf[1], str) else str(leaf[1])


def _likeness(one: Leaf, other: Leaf, budget: Budget) -> Similarity:
    """How alike two unequal values under one path are."""
    if one[0] != other[0]:
        return Similarity(_OTHER_TYPE if _text(one).casefold() == _text(other).casefold() else 0.0)
    if one[0] == "number":
        return Similarity(_number_likeness(one[1], other[1]))
    if one[0] != "text":
        return Similarity(0.0)
    if any(character.isspace() for text in (one[1], other[1]) for character in text):
        return ratio(words(one[1]), words(other[1]), 0.0, budget)
    return ratio(one[1], other[1], 0.0, budget)


def _number_likeness(one: Any, other: Any) -> float:
    """1 - |x - y| / max(|x|, |y|): 0.9 for 9 and 10; 0 for numbers of different signs, and for NaN and infinity."""
    try:
        return max(0.0, 1.0 - abs(one - other) / max(abs(one), abs(other)))
    except OverflowError:  # an integer that is too large for a float
        return 0.0
