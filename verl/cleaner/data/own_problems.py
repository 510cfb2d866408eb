"""Problems of our own, for the comparison of strategies: where reasoning-gym has none that a small model can work on.

`gcd_chain` and `inverse_chain` take several calls: a later call needs what an earlier one printed. In `inverse_chain`
moduli are tried in turn until one has an inverse. Whether one has is seen by calling, and a call that fails with
Python's "base is not invertible" is part of the right way. `coprime` takes one call and tempts to make none: there are
two answers, and one of them is mostly right.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

Draw = Callable[[random.Random], dict[str, Any]]
"""Makes an entry as reasoning-gym's data sets hold them: `question`, `answer`, `metadata`."""

_MOST_FAILING_MODULI = 2
_COPRIME = 0.7


def draw_gcd_chain(rng: random.Random) -> dict[str, Any]:
    """Multiply a greatest common divisor by a third number."""
    divisor = rng.randint(2, 12)
    a, b = (divisor * rng.randint(2, 99 // divisor) for _ in range(2))
    factor = rng.randint(11, 99)
    return {
        "question": f"Find the greatest common divisor of {a} and {b}. Multiply it by {factor}.",
        "answer": str(math.gcd(a, b) * factor),
        "metadata": {"numbers": [a, b], "factor": factor},
    }


def draw_inverse_chain(rng: random.Random) -> dict[str, Any]:
    """Find the first modulus from a given one upwards that has an inverse, and multiply this inverse."""
    while True:
        number, modulus = rng.randint(10, 60), rng.randint(20, 90)
        moduli = range(modulus, modulus + _MOST_FAILING_MODULI + 1)
        first = next((m for m in moduli if math.gcd(number, m) == 1), None)
        if first is not None:
            break
    factor = rng.randint(11, 99)
    return {
        "question": (
            f"Find the inverse of {number} modulo {modulus}, or if it has none, modulo the next number that has one. "
            f"Multiply it by {factor}."
        ),
        "answer": str(pow(number, -1, first) * factor),
        "metadata": {"number": number, "modulus": modulus, "factor": factor},
    }


def draw_coprime(rng: random.Random) -> dict[str, Any]:
    """Whether two numbers have no common divisor; mostly they have none, so that a guess pays."""
    wanted = rng.random() < _COPRIME
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if (math.gcd(a, b) == 1) == wanted:
            break
    return {
        "question": f"Is the greatest common divisor of {a} and {b} equal to 1? Answer True or False.",
        "answer": str(wanted),
        "metadata": {"numbers": [a, b]},
    }
