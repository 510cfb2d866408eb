"""Huge pages for what a nursery has imported: a fork then copies one entry where it copied 512, and frees one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from app.sandbox import kernel

_HUGE = 2 << 20
_MADV_COLLAPSE = 25  # Linux 6.1


def collapse() -> int:
    """Make huge pages of this process's private anonymous memory where that is possible; the number made.

    A kernel without MADV_COLLAPSE, or with huge pages switched off, leaves everything as it is.
    """
    made = 0
    for start, end in _anonymous():
        address = -(-start // _HUGE) * _HUGE
        while address + _HUGE <= end:
            pointer, length = ctypes.c_void_p(address), ctypes.c_size_t(_HUGE)
            made += kernel.libc.madvise(pointer, length, ctypes.c_int(_MADV_COLLAPSE)) == 0
            address += _HUGE
    return made


def _anonymous() -> Iterator[tuple[int, int]]:
    """(start, end) of each writable private mapping without a file."""
    with open("/proc/self/maps") as file:
        lines = file.read().splitlines()
    for line in lines:
        span, mode, _, _, inode, *name = line.split(maxsplit=5)
        if mode == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = (int(number, 16) for number in span.split("-"))
            yield start, end
