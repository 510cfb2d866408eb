"""C++: the compiler of this machine, and a worker's memory of what it has compiled."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from app.settings import Settings

SOURCE = "solution.cpp"
PROGRAM = "program"
NO_COMPILER = (
    "no C++ compiler on this worker's machine: install g++ or clang++, or set CPP_COMPILER_PATH; "
    "`code-judge doctor` says what it finds\n"
)
_NAMES = ("g++", "clang++")
_SIGNS = ("lib/gcc", "lib64/gcc", "libexec/gcc", "lib/clang", "lib64/clang")
_SYSTEM_PATH = "/usr/bin:/bin"


@dataclass(frozen=True)
class Toolchain:
    """A compiler and how it is called."""

    path: str  # as found, links not followed: by its name clang++ knows what it is
    flags: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        """The command that makes PROGRAM of SOURCE."""
        return (self.path, *self.flags, "-o", PROGRAM, SOURCE)

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """What the compiler may know: where assembler and linker are, and to leave other folders alone."""
        search = f"{os.path.dirname(self.path)}:{_SYSTEM_PATH}"
        return (("PATH", search), ("TMPDIR", "."), ("LC_ALL", "C.UTF-8"))

    @property
    def folders(self) -> tuple[str, ...]:
        """What programs must be able to read for it: the folder that it was installed into, with its
        headers, if that is a compiler's (conda's, /opt/gcc-14), else its own file.
        """
        real = os.path.realpath(self.path)
        prefix = os.path.dirname(os.path.dirname(real))
        whole = prefix != "/" and any(os.path.isdir(f"{prefix}/{sign}") for sign in _SIGNS)
        return (prefix if whole else real, self.path)

    def version(self) -> str:
        """The first line of what it says of itself; empty if it can't be run."""
        try:
            said = subprocess.run([self.path, "--version"], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return said.stdout.partition("\n")[0] if said.returncode == 0 else ""


def find(settings: Settings) -> Toolchain | None:
    """CPP_COMPILER_PATH (a path, or a name in PATH), else g++, else clang++; None if there is none."""
    names = (settings.cpp_compiler_path,) if settings.cpp_compiler_path else _NAMES
    found = next(filter(None, map(shutil.which, names)), None)
    return None if found is None else Toolchain(os.path.abspath(found), settings.compiler_flags)


def native_memory(settings: Settings) -> int:
    """MiB that the sandbox for compilers and compiled programs allows; each step is held to its own limit."""
    return max(settings.max_memory, settings.max_compile_memory)


@dataclass(frozen=True)
class Compiled:
    """What came of a compilation: the program, or None and why."""

    program: bytes | None
    stdout: str
    stderr: str
    return_code: int | None  # None: it was stopped when its time was over
    seconds: float
    over_memory: bool = False

    @property
    def lasting(self) -> bool:
        """Whether the same source would come to the same again, so that this may be remembered."""
        return self.return_code is not None and (self.return_code >= 0 or self.over_memory)

    @property
    def size(self) -> int:
        """Bytes of memory, nearly."""
        return len(self.program or b"") + len(self.stdout) + len(self.stderr) + 1000


class Memory:
    """The last compiled programs of one worker, errors too, up to so many bytes. What was not used for the
    longest time goes first.

    Tests of one source come in dozens, one job each: every worker compiles it once. A compilation has a
    sandbox of its own and its key is everything that went in, so that a hostile source can spoil nothing but
    its own entry.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[bytes, Compiled] = OrderedDict()

    def get(self, key: bytes) -> Compiled | None:
        """What is known, and is now the last used."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: bytes, compiled: Compiled) -> None:
        """Remember, unless it is larger than everything together may be."""
        if not compiled.lasting or compiled.size > self.limit:
            return
        if (old := self._kept.pop(key, None)) is not None:
            self.size -= old.size
        self._kept[key] = compiled
        self.size += compiled.size
        while self.size > self.limit:
            self.size -= self._kept.popitem(last=False)[1].size


def key(toolchain: Toolchain, source: str, files: Mapping[str, bytes]) -> bytes:
    """The key of a compilation: compiler, flags, source, and the files beside it."""
    parts = [part.encode() for part in (*toolchain.command, source)]
    for name in sorted(files):
        parts += [name.encode(), files[name]]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
