"""Which modules a nursery imports before any program, in layers, each a process that is forked from another:

    core ─┬─ standard library
          └─ first of PRELOAD (numpy) ── its parts ── second (sympy) ── ... ── math-verify

A fork copies the page tables of everything that is imported, and its end frees them again. So a program is forked from
the lowest layer that has what its text names; a module that is named nowhere here is imported by the program itself.
"""

from __future__ import annotations

import re
from functools import cache

# What the sandbox itself needs is here anyway; the rest is small, and most programs use it.
CORE = (
    "__future__", "abc", "ast", "bisect", "cmath", "collections", "collections.abc", "contextlib", "copy", "datetime",
    "decimal", "encodings.idna", "encodings.latin_1", "enum", "fractions", "functools", "heapq", "io", "itertools",
    "json", "linecache", "math", "numbers", "operator", "os", "re", "string", "struct", "sys",
    "textwrap", "time", "traceback", "types", "typing", "warnings",
)  # fmt: skip
# Name in the text: modules to import. They bring shared libraries and hooks that run at every fork and every exit.
STANDARD = {
    "argparse": "argparse", "asyncio": "asyncio", "base64": "base64", "calendar": "calendar", "codecs": "codecs",
    "concurrent": "concurrent.futures", "csv": "csv", "dataclasses": "dataclasses", "difflib": "difflib",
    "glob": "glob", "hashlib": "hashlib", "html": "html", "inspect": "inspect", "locale": "locale",
    "logging": "logging", "multiprocessing": "multiprocessing.pool", "pathlib": "pathlib", "pickle": "pickle",
    "platform": "platform", "pprint": "pprint", "queue": "queue", "random": "random", "secrets": "secrets",
    "shutil": "shutil", "socket": "socket", "statistics": "statistics", "subprocess": "subprocess",
    "tempfile": "tempfile", "threading": "threading", "timeit": "timeit", "unicodedata": "unicodedata",
    "unittest": "unittest", "urllib": "urllib.parse", "uuid": "uuid", "zlib": "zlib",
}  # fmt: skip
# What few programs use of a package, and what brings many libraries. It is loaded anyway when a program asks for it.
PARTS = {"numpy": ("numpy.fft", "numpy.polynomial", "numpy.random")}
MATH = ("math_verify",)  # for jobs of type `math` only; built when the first of them comes
_NAMED = re.compile(r"\b(?:" + "|".join(STANDARD) + r")\b")
_PARTS_NAMED = {
    package: re.compile(
        r"\b(?:" + "|".join((*(part.partition(".")[2] for part in parts), *STANDARD)) + r")\b"
    )
    for package, parts in PARTS.items()
}


def modules(preload: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What each layer imports on top of the one that it stands on: CORE, STANDARD, each of `preload` and its parts,
    MATH."""
    return [CORE, tuple(STANDARD.values()), *(imports for _, imports in _chain(preload)), MATH]


def math(preload: tuple[str, ...]) -> int:
    """The number of the layer of MATH."""
    return len(_chain(preload)) + 2


def above(number: int, preload: tuple[str, ...]) -> list[int]:
    """The numbers of the layers that stand on layer `number`."""
    if number == 0:
        return [1, 2]
    return [number + 1] if 2 <= number < math(preload) else []


def choose(text: str, preload: tuple[str, ...], seeded: bool = False) -> int:
    """The number of the lowest layer that has the modules that `text` names.

    seeded: the program's random numbers are asked for, whether it draws any or not.
    """
    chain = _chain(preload)
    for number in range(len(chain) - 1, -1, -1):
        package, imports = chain[number]
        if package in text and (
            imports == (package,) or seeded or _PARTS_NAMED[package].search(text) is not None
        ):
            return number + 2
    return 1 if _NAMED.search(text) else 0


@cache
def _chain(preload: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """(package that a text has to name, imports) of the layers 2, 3, ... below MATH."""
    layers: list[tuple[str, tuple[str, ...]]] = []
    for package in preload:
        layers.append((package, (package,)))
        if package in PARTS:
            layers.append((package, PARTS[package]))
    return layers
