"""Right programs for the problems: several approaches each, so that a repair can be a different one.

Problems that take several calls (``cleaner.data.own_problems``) have programs for the next call, given what the calls
before it printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cleaner.data.tasks import Problem


@dataclass(frozen=True)
class Program:
    """A program and the sentence that announces it."""

    reasoning: str
    code: str


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _gcd(metadata: dict[str, Any]) -> list[Program]:
    a, b = metadata["numbers"]
    return [
        Program("I use math.gcd.", _lines("import math", f"print(math.gcd({a}, {b}))")),
        Program("I use math.gcd.", _lines("import math", f"a = {a}", f"b = {b}", "print(math.gcd(a, b))")),
        Program(
            "I use Euclid's algorithm.",
            _lines(f"a, b = {a}, {b}", "while b:", "    a, b = b, a % b", "print(a)"),
        ),
    ]


def _lcm(metadata: dict[str, Any]) -> list[Program]:
    a, b = metadata["numbers"]
    return [
        Program("I use math.lcm.", _lines("import math", f"print(math.lcm({a}, {b}))")),
        Program("I use math.lcm.", _lines("import math", f"a = {a}", f"b = {b}", "print(math.lcm(a, b))")),
        Program(
            "I try the multiples.",
            _lines(f"a, b = {a}, {b}", "n = a", "while n % b:", "    n += a", "print(n)"),
        ),
    ]


def _chain_sum(metadata: dict[str, Any]) -> list[Program]:
    expression = metadata["expression"]
    terms = ", ".join(re.sub(r"\s", "", term) for term in re.findall(r"(?:^|-\s)?\d+", expression))
    return [
        Program("I compute the expression.", _lines(f"total = {expression}", "print(total)")),
        Program("I add the terms.", _lines(f"terms = [{terms}]", "print(sum(terms))")),
        Program(
            "I add the terms one by one.",
            _lines("total = 0", f"for term in [{terms}]:", "    total += term", "print(total)"),
        ),
    ]


def _products(metadata: dict[str, Any]) -> list[Program]:
    a, b = metadata["expression"].split(" * ")
    return [
        Program("I multiply.", _lines(f"result = {a} * {b}", "print(result)")),
        Program("I multiply.", _lines(f"a = {a}", f"b = {b}", "print(a * b)")),
        Program("I use math.prod.", _lines("import math", f"print(math.prod([{a}, {b}]))")),
    ]


def _leg_counting(metadata: dict[str, Any]) -> list[Program]:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    pairs = [(count, ANIMALS[animal]) for animal, count in metadata["animals"].items()]
    return [
        Program(
            "I add up the legs.",
            _lines("total = 0", *(f"total += {count} * {legs}" for count, legs in pairs), "print(total)"),
        ),
        Program(
            "I sum counts times legs.",
            _lines(f"pairs = {pairs}", "print(sum(n * legs for n, legs in pairs))"),
        ),
        Program(
            "I compute the legs.",
            _lines("legs = " + " + ".join(f"{count} * {legs}" for count, legs in pairs), "print(legs)"),
        ),
    ]


def _count_bits(metadata: dict[str, Any]) -> list[Program]:
    n = metadata["number"]
    return [
        Program("I count the ones.", _lines(f"n = {n}", "print(bin(n).count('1'))")),
        Program("I sum the bits.", _lines(f"bits = bin({n})[2:]", "print(sum(int(bit) for bit in bits))")),
        Program(
            "I divide by two.",
            _lines(f"n = {n}", "count = 0", "while n:", "    count += n % 2", "    n //= 2", "print(count)"),
        ),
    ]


def _coprime(metadata: dict[str, Any]) -> list[Program]:
    a, b = metadata["numbers"]
    return [
        Program("I use math.gcd.", _lines("import math", f"print(math.gcd({a}, {b}) == 1)")),
        Program(
            "I use math.gcd.", _lines("import math", f"a = {a}", f"b = {b}", "print(math.gcd(a, b) == 1)")
        ),
        Program(
            "I use Euclid's algorithm.",
            _lines(f"a, b = {a}, {b}", "while b:", "    a, b = b, a % b", "print(a == 1)"),
        ),
    ]


def _inverse(metadata: dict[str, Any], refuted: int) -> list[Program]:
    number, modulus = metadata["number"], metadata["modulus"] + refuted
    reasoning = "I try the next modulus." if refuted else "I compute the inverse."
    return [
        Program(reasoning, f"print(pow({number}, -1, {modulus}))"),
        Program(reasoning, _lines(f"a, m = {number}, {modulus}", "print(pow(a, -1, m))")),
    ]


def _times(printed: str, factor: int) -> list[Program]:
    return [
        Program("I multiply.", _lines(f"result = {printed} * {factor}", "print(result)")),
        Program("I multiply.", f"print({printed} * {factor})"),
    ]


_BY_TASK: dict[str, Callable[[dict[str, Any]], list[Program]]] = {
    "gcd": _gcd,
    "lcm": _lcm,
    "chain_sum": _chain_sum,
    "products": _products,
    "leg_counting": _leg_counting,
    "count_bits": _count_bits,
    "coprime": _coprime,
}
CHAINS = ("gcd_chain", "inverse_chain")
_NOT_INVERTIBLE = "not invertible"


def right_programs(problem: Problem) -> list[Program]:
    """Programs that print the answer and nothing else, one an approach.  ``KeyError`` for a task without any."""
    return _BY_TASK[problem.task](problem.metadata)


def next_programs(problem: Problem, seen: Sequence[tuple[bool, str]] = ()) -> list[Program]:
    """Right programs for the next call; none where the last successful call printed the answer.

    ``seen``: of each call so far, whether it succeeded and what the tool answered.
    """
    printed = [text for ok, text in seen if ok]
    if problem.task not in CHAINS:
        return [] if printed else right_programs(problem)
    if len(printed) > 1:
        return []
    if printed:
        return _times(printed[0], problem.metadata["factor"])
    if problem.task == "gcd_chain":
        return _gcd(problem.metadata)
    return _inverse(problem.metadata, sum(_NOT_INVERTIBLE in text for _, text in seen))
