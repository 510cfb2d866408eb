"""Counting the processes of a job and their memory, from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable

_PAGE = os.sysconf("SC_PAGESIZE")
_LOOKS = 5
_BETWEEN_LOOKS = 0.002  # seconds


def others() -> list[int]:
    """Every process in sight but this one and process 1. In the zygote's pid namespace that is the job."""
    own = os.getpid()
    return [pid for name in os.listdir("/proc") if name.isdigit() and (pid := int(name)) not in (1, own)]


def descendants() -> list[int]:
    """Every process whose chain of parents leads here. Without /proc there are none in sight."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            with (
                contextlib.suppress(OSError, ValueError, IndexError),
                open(f"/proc/{name}/stat", "rb") as file,
            ):
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        kin = children.pop(queue.pop(), [])
        found += kin
        queue += kin
    return found


def resident(pid: int) -> int:
    """The bytes of memory that process `pid` has mapped and touched; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


def memory(pids: Iterable[int], baseline: int, limit: int) -> int:
    """The bytes that the processes use together. `baseline` is what each has from the zygote, shared and
    free.

    A page shared by several counts several times in a first, cheap sum; only if that is over `limit` is
    each page
    counted exactly (its proportional share), which takes milliseconds.
    """
    pids = list(pids)
    rough = sum(max(0, resident(pid) - baseline) for pid in pids)
    if rough <= limit:
        return rough
    # While processes leave one after the other, a look finds a page's last owner after it has counted the shares of the
    # others, and counts the page again. Only what every look finds is over the limit.
    least = rough
    for _ in range(_LOOKS):
        least = min(least, _exact(pids, rough))
        if least <= limit:
            break
        time.sleep(_BETWEEN_LOOKS)
    return least


def _exact(pids: Iterable[int], otherwise: int) -> int:
    sizes = [_proportional(pid) for pid in pids]
    return otherwise if None in sizes else sum(size for size in sizes if size is not None)


def _proportional(pid: int) -> int | None:
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith((b"Pss_Anon:", b"Pss_Shmem:")):
                    total += int(line.split()[1]) << 10
    except ProcessLookupError:
        return 0
    except OSError:
        # A process that ended meanwhile has no folder either; without this file, the kernel has none of its kind.
        return None if os.path.exists(f"/proc/{pid}") else 0
    return total
