"""Control groups: the kernel's own count of a job's memory and processes, where this user may make groups.

The watcher (`census`) looks every 50 ms and words the answer; a group holds in between. One group a zygote: its
programs are born in it, which costs a job nothing. The limit leaves room for the scratch folders, which live in memory,
and for the zygote's own pages.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

_MOUNT = "/sys/fs/cgroup"
_PREFIX = "code-judge-"
_ROOM = 96 << 20  # bytes for the zygote
_OWN_PROCESSES = 4
_MEMORY = ("memory.max", "memory.limit_in_bytes")  # version 2, version 1
_EVENTS = ("memory.events", "memory.oom_control")


def parents() -> tuple[str, ...]:
    """Folders below which groups can be made that limit memory, and in version 1 another for processes; else empty."""
    homes: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.strip().split(":", 2)
            homes |= dict.fromkeys(controllers.split(","), path)
    for unified in (_MOUNT, f"{_MOUNT}/unified"):
        home = unified + homes.get("", "/nowhere").rstrip("/")
        if _try(home):
            return (home,)
    memory = f"{_MOUNT}/memory" + homes.get("memory", "/nowhere").rstrip("/")
    if not _try(memory):
        return ()
    processes = f"{_MOUNT}/pids" + homes.get("pids", "/nowhere").rstrip("/")
    return (memory, processes) if _try(processes, "pids.max") else (memory,)


def _try(home: str, *files: str) -> bool:
    """Whether a group below `home` has a file that limits it. Version 2 has it only if `home` may hand it on."""
    group = f"{home}/{_PREFIX}probe-{os.getpid()}"
    try:
        _hand_on(home)
        os.mkdir(group)
    except OSError:
        return False
    try:
        return any(os.path.exists(f"{group}/{file}") for file in files or _MEMORY)
    finally:
        os.rmdir(group)


def _hand_on(home: str) -> None:
    """Version 2: let the groups below `home` limit memory and processes. Raises OSError if that is not allowed."""
    control = f"{home}/cgroup.subtree_control"
    if os.path.exists(control):
        with open(control, "w") as file:
            file.write("+memory +pids")


def claim(homes: Sequence[str]) -> tuple[str, ...]:
    """Make a group below each of `homes` for this process's zygotes. Also removes those of dead processes."""
    made = []
    for home in homes:
        for name in os.listdir(home):
            pid = name.rpartition("-")[2]
            if name.startswith(_PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                remove([f"{home}/{name}"])
        made.append(f"{home}/{_PREFIX}{os.getpid()}")
        os.mkdir(made[-1])
        _hand_on(made[-1])
    return tuple(made)


def remove(groups: Sequence[str]) -> None:
    """Remove groups with those below; one that still has processes stays."""
    for group in groups:
        with contextlib.suppress(OSError):
            for entry in os.scandir(group):
                if entry.is_dir():
                    with contextlib.suppress(OSError):
                        os.rmdir(entry.path)
            os.rmdir(group)


def join(groups: Sequence[str], memory: int, processes: int) -> int | None:
    """Move this process into a group of its own below each of `groups`.

    memory: bytes of all its programs, scratch folders included. processes: how many they may have. Returns the
    descriptor of the file that counts kills, for `kills`; None without groups. Raises OSError.
    """
    events = None
    for parent in groups:
        group = f"{parent}/{os.getpid()}"
        os.mkdir(group)
        limits = [(name, memory + _ROOM) for name in _MEMORY]
        limits += [("memory.swap.max", 0), ("pids.max", processes + _OWN_PROCESSES)]
        for name, value in limits:
            if os.path.exists(f"{group}/{name}"):
                with open(f"{group}/{name}", "w") as file:
                    file.write(str(value))
        for name in _EVENTS:
            if os.path.exists(f"{group}/{name}"):
                events = os.open(f"{group}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        with open(f"{group}/cgroup.procs", "w") as file:
            file.write("0")
    return events


def kills(events: bytes) -> int:
    """How many processes of the group the kernel has killed for its memory, from what the file of `join` holds."""
    return sum(int(value) for name, value in _pairs(events) if name == "oom_kill")


def _pairs(data: bytes) -> Iterator[tuple[str, str]]:
    for line in data.decode().splitlines():
        name, _, value = line.partition(" ")
        yield name, value


class Preference:
    """Lets the kernel choose a program, not its zygote, when the group is out of memory.

    A child inherits what its parent has at the fork, so the zygote writes before and after; a program that wrote itself
    would pay for the walk through /proc.
    """

    def __init__(self) -> None:
        self.file = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # for a program to close
        self._own = os.read(self.file, 16)

    def offer(self) -> None:
        """The processes that are forked from here on go first."""
        self._write(b"500")

    def withdraw(self) -> None:
        """This process, and what it forks from here on, is as before."""
        self._write(self._own)

    def _write(self, value: bytes) -> None:
        try:  # noqa: SIM105 - a context manager would be more to touch, for every program
            os.pwrite(self.file, value, 0)
        except OSError:
            pass  # a user without rights may not be allowed to lower it again
