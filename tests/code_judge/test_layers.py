"""Which process a program is forked from, and that this shows in nothing but speed."""

from __future__ import annotations

from typing import Any

import pytest

from app.sandbox import layers

PRELOAD = ("numpy", "sympy")
HIDDEN = (
    "import numpy; draw = getattr(numpy, 'ran' 'dom').rand\n"  # a program that names no part, and uses one
)


@pytest.mark.parametrize(
    ("text", "imported"),
    [
        ("print(7)", "json"),
        ("import random", "random"),
        ("import numpy as np; np.linalg.inv", "numpy"),
        ("import numpy as np; np.random.rand()", "numpy.random"),
        ("from numpy.fft import fft", "numpy.random"),
        ("import numpy, hashlib", "numpy.random"),
        ("import sympy", "sympy"),
        ("import numpy, sympy, random", "sympy"),
    ],
)
def test_a_program_gets_the_lowest_layer_that_has_what_it_names(text: str, imported: str) -> None:
    assert imported in layers.modules(PRELOAD)[layers.choose(text, PRELOAD)]


def test_a_seeded_program_gets_the_layer_with_all_that_can_be_seeded() -> None:
    chosen = layers.choose("import numpy", PRELOAD, seeded=True)
    assert "numpy.random" in layers.modules(PRELOAD)[chosen]
    assert layers.choose("print(7)", PRELOAD, seeded=True) == 0


@pytest.mark.parametrize("preload", [(), ("numpy",), ("sympy", "numpy"), ("numpy", "pandas", "sympy")])
def test_every_layer_but_the_first_stands_on_one_and_math_is_the_top(preload: tuple[str, ...]) -> None:
    count = len(layers.modules(preload))
    above = [upper for number in range(count) for upper in layers.above(number, preload)]
    assert sorted(above) == list(range(1, count))
    assert layers.math(preload) == count - 1
    assert layers.modules(preload)[-1] == layers.MATH


def test_parts_that_a_text_does_not_name_are_there_all_the_same(judge: Any) -> None:
    assert judge.prints(HIDDEN + "print(draw() != draw())") == "True\n"
    assert judge.prints(HIDDEN + "print(draw())") != judge.prints(HIDDEN + "print(draw())")


def test_their_random_numbers_are_seeded_like_others(judge: Any) -> None:
    first, second = (judge.prints(HIDDEN + "print(draw())", options={"seed": "7"}) for _ in range(2))
    named = judge.prints("import numpy\nprint(numpy.random.rand())", options={"seed": "7"})
    assert first == second == named
