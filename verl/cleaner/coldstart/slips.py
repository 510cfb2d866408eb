"""Programs that fail: right ones with a slip of the kind language models make, and dead ends that start out wrong.

A *slip* is a small edit (an import forgotten, a name misspelt, a bracket left open): its repair looks like it.  A
*dead end* is another approach (a package that isn't installed, a function that doesn't exist): its repair is new code.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from cleaner.coldstart.solutions import Program
from cleaner.data.tasks import Problem

Slip = Callable[[str, random.Random], str | None]
"""Edit of a program so that it fails, or None where it doesn't apply."""


def _missing_import(code: str, rng: random.Random) -> str | None:
    return code.replace("import math\n", "", 1) if code.startswith("import math\n") else None


def _open_bracket(code: str, rng: random.Random) -> str | None:
    return code[:-1] if code.endswith(")") else None


def _python2_print(code: str, rng: random.Random) -> str | None:
    head, _, argument = code.rpartition("print(")
    return f"{head}print {argument[:-1]}" if argument.endswith(")") and "\n" not in argument else None


def _misspelt_name(code: str, rng: random.Random) -> str | None:
    """A variable gets another name in the last line."""
    head, _, last = code.rpartition("\n")
    names = re.findall(r"^(\w{4,}) [+/]?= ", head, re.MULTILINE)
    used = [name for name in dict.fromkeys(names) if re.search(rf"\b{name}\b", last)]
    if not used:
        return None
    name = rng.choice(used)
    wrong = rng.choice((name[:-1], "answer"))
    return f"{head}\n" + re.sub(rf"\b{name}\b", wrong, last)


def _text_plus_number(code: str, rng: random.Random) -> str | None:
    head, _, argument = code.rpartition("print(")
    return f"{head}print('answer ' + {argument}" if argument.endswith(")") else None


def _wrong_method(code: str, rng: random.Random) -> str | None:
    for right, wrong in (("math.gcd", "math.gdc"), ("math.lcm", "math.lmc"), ("math.prod", "math.product")):
        if right in code:
            return code.replace(right, wrong)
    return None


def _number_for_text(code: str, rng: random.Random) -> str | None:
    return code.replace(".count('1')", ".count(1)") if ".count('1')" in code else None


def _missing_start_value(code: str, rng: random.Random) -> str | None:
    edited = re.sub(r"^(total|count) = 0\n", "", code, count=1, flags=re.MULTILINE)
    return edited if edited != code else None


def _text_start_value(code: str, rng: random.Random) -> str | None:
    edited = re.sub(r"^(total|count) = 0\n", r"\1 = ''\n", code, count=1, flags=re.MULTILINE)
    return edited if edited != code else None


def _missing_colon(code: str, rng: random.Random) -> str | None:
    edited = re.sub(r"^((?:while|for) .*):$", r"\1", code, count=1, flags=re.MULTILINE)
    return edited if edited != code else None


def _missing_indent(code: str, rng: random.Random) -> str | None:
    return code.replace("\n    ", "\n", 1) if "\n    " in code else None


SLIPS: dict[str, tuple[Slip, float]] = {
    "missing import": (_missing_import, 4.0),
    "misspelt name": (_misspelt_name, 2.0),
    "open bracket": (_open_bracket, 1.0),
    "Python 2 print": (_python2_print, 1.0),
    "text plus number": (_text_plus_number, 1.5),
    "wrong method": (_wrong_method, 1.5),
    "number for text": (_number_for_text, 2.0),
    "missing start value": (_missing_start_value, 2.0),
    "text as start value": (_text_start_value, 1.0),
    "missing colon": (_missing_colon, 1.5),
    "missing indent": (_missing_indent, 1.0),
}
"""Slips by name with their weights: how often one is made where several apply."""


def slip(code: str, rng: random.Random) -> tuple[str, str]:
    """A failing variant of a right program: (the slip's name, the code).  Every program here admits at least one."""
    found = [
        (name, edited, weight)
        for name, (edit, weight) in SLIPS.items()
        if (edited := edit(code, rng)) is not None and edited != code
    ]
    name, edited, _ = rng.choices(found, weights=[weight for *_, weight in found])[0]
    return name, edited


def dead_ends(problem: Problem) -> list[Program]:
    """Failing programs that differ from every right one: absent packages and methods that don't exist."""
    metadata = problem.metadata
    if problem.task == "inverse_chain":
        number, modulus = metadata["number"], metadata["modulus"]
        return [
            Program("I use modinv.", f"import modinv\nprint(modinv.inverse({number}, {modulus}))"),
            Program("I use the inverse.", f"print(inverse({number}, {modulus}))"),
        ]
    if problem.task in ("gcd", "lcm", "gcd_chain", "coprime"):
        a, b = metadata["numbers"]
        name = "lcm" if problem.task == "lcm" else "gcd"
        return [
            Program("I use gmpy2.", f"import gmpy2\nprint(gmpy2.{name}({a}, {b}))"),
            Program(
                "I compare the factors.",
                f"x = factors({a})\ny = factors({b})\nprint({'max(x & y)' if name == 'gcd' else 'x | y'})",
            ),
        ]
    if problem.task == "chain_sum":
        text = metadata["expression"]
        return [
            Program("I use a calculator.", f"import calculator\nprint(calculator.run('{text}'))"),
            Program("I read the terms.", f"words = '{text}'.split()\nprint(int(words[0]) + words[2])"),
        ]
    if problem.task == "products":
        a, b = metadata["expression"].split(" * ")
        return [
            Program("I use a calculator.", f"import calculator\nprint(calculator.multiply('{a}', '{b}'))"),
            Program("I read the factors.", f"words = '{a} {b}'.split()\nprint(words[0] * words[1])"),
        ]
    if problem.task == "leg_counting":
        animals = metadata["animals"]
        return [
            Program("I look the animals up.", f"import animals\nprint(animals.legs({dict(animals)}))"),
            Program(
                "I look the animals up.",
                f"animals = {list(animals)}\nprint(sum(animal.legs for animal in animals))",
            ),
        ]
    if problem.task == "count_bits":
        n = metadata["number"]
        return [
            Program("I use bitarray.", f"from bitarray import bitarray\nprint(bitarray({n}).count())"),
            Program("I list the bits.", f"ones = [b for b in {n} if b == 1]\nprint(len(ones))"),
        ]
    raise KeyError(problem.task)
