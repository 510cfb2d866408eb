"""Which modules a nursery imports before any program, in layers, each a process that is forked from another:

    core ─┬─ standard library
          └─ first of PRELOAD (numpy) ── second (sympy) ── ... ── math-verify

A fork copies the page tables of everything that is imported, and its end frees them again. So a program is forked from
the lowest layer that has what its text names; a module that is named nowhere here is imported by the program itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
MATH = ("math_verify",)  # for jobs of type `math` only; built when the first of them comes
_NAMED = re.compile(r"\b(?:" + "|".join(STANDARD) + r")\b")


def modules(preload: Sequence[str]) -> list[tuple[str, ...]]:
    """What each layer imports on top of the one that it stands on: CORE, STANDARD, each of `preload`, MATH."""
    return [CORE, tuple(STANDARD.values()), *((name,) for name in preload), MATH]


def math(preload: Sequence[str]) -> int:
    """The number of the layer of MATH."""
    return len(preload) + 2


def above(number: int, preload: Sequence[str]) -> list[int]:
    """The numbers of the layers that stand on layer `number`."""
    if number == 0:
        return [1, 2]
    return [number + 1] if 2 <= number < math(preload) else []


def choose(text: str, preload: Sequence[str]) -> int:
    """The number of the lowest layer that has the modules that `text` names."""
    for number in range(len(preload), 0, -1):
        if preload[number - 1] in text:
            return number + 1
    return 1 if _NAMED.search(text) else 0
