"""Right programs for the quick start's problems: several approaches each, so that a repair can be a different one."""

from __future__ import annotations

import re
from collections.abc import Callable
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


_BY_TASK: dict[str, Callable[[dict[str, Any]], list[Program]]] = {
    "gcd": _gcd,
    "lcm": _lcm,
    "chain_sum": _chain_sum,
    "products": _products,
    "leg_counting": _leg_counting,
    "count_bits": _count_bits,
}


def right_programs(problem: Problem) -> list[Program]:
    """Programs that print the answer and nothing else, one an approach.  ``KeyError`` for a task without any."""
    return _BY_TASK[problem.task](problem.metadata)
