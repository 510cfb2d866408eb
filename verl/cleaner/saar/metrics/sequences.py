"""difflib's ratio of two sequences, at a bounded cost.

The ratio (Ratcliff and Obershelp's, as in `difflib.SequenceMatcher(autojunk=False)`) is 2 M / T: T elements in both,
M of them matched by taking the longest shared run and going on to its left and right. The worst case is cubic:
cydifflib, which is difflib in C, needs 5 s for "a" * 2000 against "ab" * 1000, and holds the GIL all that time, so that
not even a thread keeps it from stopping an event loop.

So the runs are taken here one at a time, each with what finds it soonest (cydifflib or `longest_shared`), as long as a
budget lasts. It is counted in estimated nanoseconds, not in measured ones: equal inputs give equal results in every
run. When it is spent, what was matched is a lower bound, and what the unseen pieces have in common makes an upper one.
"""

import heapq
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from cleaner.saar.metrics.automaton import longest_shared

try:
    from cydifflib import SequenceMatcher

    # Measured on two cores of an AMD EPYC: for each pair of equal elements, and for each pair of elements.
    _PAIR_NS, _CELL_NS = 5.0, 0.15
except ImportError:  # no wheel for this platform: the same numbers, but a spent budget gets less far
    from difflib import SequenceMatcher

    _PAIR_NS, _CELL_NS = 120.0, 0.0

# Up to this many elements together no upper bound is tried, so that what is recorded is the ratio itself.
EXACT_ELEMENTS = 4_000
# Of one comparison, whatever it is made of.
BUDGET_NS = 800_000_000
# The longest that one call of cydifflib may hold the GIL.
_HOLD_NS = 20_000_000
# Pieces that cannot take longer than this, even in the worst case, are left to cydifflib as a whole.
_WHOLE_NS = 1_000_000
_PIECE_NS = 20_000  # to look at a piece at all
_CALL_NS = 1_000
# For each element of both, and more where the automaton does not fit the processor's caches.
_AUTOMATON_NS, _AUTOMATON_MISS_NS = 800, 0.012


@dataclass(frozen=True)
class Similarity:
    """How alike two things are.

    Attributes:
        value: in [0, 1].
        exact: False where cost forbade the metric's own value. Then `value` is either an upper bound of it and below
            gamma, or a lower bound. So a value >= gamma is one that the metric itself would reach. Where neither side
            of gamma is proven, the value is below: a deep repair is sound at any similarity, a shallow one is not.
    """

    value: float
    exact: bool = True


class Budget:
    """Estimated nanoseconds that a comparison may still take."""

    def __init__(self, nanoseconds: float = BUDGET_NS) -> None:
        self.left = nanoseconds

    def spend(self, nanoseconds: float) -> bool:
        """Take them, if that many are left."""
        if nanoseconds > self.left:
            return False
        self.left -= nanoseconds
        return True


def ratio(
    failed: Sequence[Hashable], accepted: Sequence[Hashable], gamma: float, budget: Budget | None = None
) -> Similarity:
    """difflib's ratio of `failed` to `accepted`, bit for bit where it is exact. Not symmetric.

    Of long sequences upper bounds are tried first, by the lengths and then by the elements regardless of order.

    Time: 0.9 s at most, of which cydifflib holds the GIL for 20 ms at a time. Of sequences of more than some 150,000
    elements each, only the upper bounds are computed, which takes 0.2 s for a million.

    Args:
        failed: both of one type, strings or lists.
        gamma: an upper bound below it is enough to know; 0 asks for no bounds.
        budget: shared by the parts of a comparison; by default one of its own.
    """
    total = len(failed) + len(accepted)
    if failed == accepted:
        return Similarity(1.0)
    upper = 2.0 * min(len(failed), len(accepted)) / total
    bounded = total > EXACT_ELEMENTS
    if bounded and upper < gamma:
        return Similarity(upper, exact=False)
    common, _ = _shared(failed, accepted)
    upper = 2.0 * common / total
    if common == 0 or (bounded and upper < gamma):
        return Similarity(upper, exact=common == 0)
    matched, unknown = _matches(failed, accepted, Budget() if budget is None else budget)
    if unknown:
        upper = min(upper, 2.0 * (matched + unknown) / total)
        if upper < gamma:
            return Similarity(upper, exact=False)
    return Similarity(2.0 * matched / total, exact=unknown == 0)


def _matches(a: Sequence[Hashable], b: Sequence[Hashable], budget: Budget) -> tuple[int, int]:
    """Elements matched, and how many more there could be at most in pieces that the budget did not allow."""
    matched = unknown = 0
    # The pieces in which most can be found come first. Their order does not change what is found in them.
    pieces = [(-min(len(a), len(b)), 0, len(a), 0, len(b))]
    while pieces:
        _, a_start, a_stop, b_start, b_stop = heapq.heappop(pieces)
        x, y = a[a_start:a_stop], b[b_start:b_stop]
        common, pairs = _shared(x, y)
        if not common:
            continue
        native = _CALL_NS + pairs * _PAIR_NS + len(x) * len(y) * _CELL_NS
        # Every run takes a common element at least: the recursion has at most so many levels, and one that finds none.
        whole = native * (common + 1)
        if whole <= _WHOLE_NS:
            if budget.spend(_PIECE_NS + whole):
                blocks = SequenceMatcher(None, x, y, autojunk=False).get_matching_blocks()
                matched += sum(size for _, _, size in blocks)
            else:
                unknown += common
            continue
        linear = (len(x) + len(y)) * (_AUTOMATON_NS + min(len(x), len(y)) * _AUTOMATON_MISS_NS)
        by_pairs = native <= min(linear, _HOLD_NS)
        if not budget.spend(_PIECE_NS + (native if by_pairs else linear)):
            unknown += common
            continue
        if by_pairs:
            matcher = SequenceMatcher(None, x, y, autojunk=False)
            i, j, size = matcher.find_longest_match(0, len(x), 0, len(y))
        else:
            i, j, size = longest_shared(x, y)
        matched += size
        i, j = i + a_start, j + b_start
        for piece in ((a_start, i, b_start, j), (i + size, a_stop, j + size, b_stop)):
            shorter = min(piece[1] - piece[0], piece[3] - piece[2])
            if shorter:
                heapq.heappush(pieces, (-shorter, *piece))
    return matched, unknown


def _shared(a: Sequence[Hashable], b: Sequence[Hashable]) -> tuple[int, int]:
    """Elements in common regardless of order, and pairs of equal elements."""
    in_a, in_b = Counter(a), Counter(b)
    common = pairs = 0
    for element, count in in_a.items():
        if element in in_b:
            other = in_b[element]
            common += min(count, other)
            pairs += count * other
    return common, pairs
