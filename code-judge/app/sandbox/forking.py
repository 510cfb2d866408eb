"""Forks of the sandbox's own, without the hooks that imported modules have registered for the child of every fork.

`threading` makes its locks anew, `random` seeds itself: each writes to pages that the kernel then copies, for every
program. A zygote has one thread and holds no lock, and seeds ahead of the fork (`program.seed`), so its children need
neither. What a program forks itself runs them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

_register = os.register_at_fork
_hooks: list[Callable[[], object]] = []
_own = False


def keep_hooks() -> None:
    """From here on the hooks for children are kept in this module, until `release`."""
    _register(after_in_child=_run_hooks)
    os.register_at_fork = _keep


def release() -> None:
    """Hooks that are registered from here on are the interpreter's, as always."""
    os.register_at_fork = _register


def fork() -> int:
    """os.fork() without the hooks that were kept."""
    global _own
    _own = True
    try:
        return os.fork()
    finally:
        _own = False


def _keep(*, after_in_child: Callable[[], object] | None = None, **others: Any) -> None:
    if after_in_child is not None:
        _hooks.append(after_in_child)
    if others:
        _register(**others)


def _run_hooks() -> None:
    if not _own:
        for hook in _hooks:
            hook()
