"""What can be imported here beside the standard library, for the message about a module that can't."""

from __future__ import annotations

import functools
import os
import sys

# What programs are likely to have a use for. Hundreds of names would only bury these.
_USEFUL = (
    "numpy", "scipy", "sympy", "mpmath", "pandas", "networkx", "sklearn", "statsmodels", "matplotlib", "numba",
    "gmpy2", "cvxpy", "pulp", "ortools", "z3", "shapely", "sortedcontainers", "more_itertools", "bitarray",
    "dateutil", "regex", "nltk", "bs4", "lxml", "yaml", "PIL",
)  # fmt: skip


@functools.cache
def useful() -> tuple[str, ...]:
    """Names of modules, found in the folders of sys.path without importing any."""
    there: set[str] = set()
    for folder in sys.path:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        there.update(name.partition(".")[0] for name in names if "-" not in name)
    return tuple(name for name in _USEFUL if name in there)


def explain(error: ImportError) -> None:
    """Add to the message of an error about a missing module what is there."""
    if error.name and "." not in error.name and useful():
        error.msg = f"{error.msg} (installed beside the standard library: {', '.join(useful())})"
