"""What crosses the wall: the configuration of a nursery, the order to run one program, the word that it has
ended.

A zygote has two SOCK_SEQPACKET sockets to its worker. On the *job* socket the next program process (not the zygote)
receives one `Order` with five descriptors. On the *control* socket the worker sends one letter and a
sequence number,
and the zygote answers each program with one `Ending`.
"""

from __future__ import annotations

import json
import marshal
import struct
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from app.sandbox.isolation import Plan

INTERRUPT = b"T"  # the time is over: let the program say where it is
KILL = b"K"  # kill everything the program left or is
MEASURE = b"M"  # kill it if its processes use more than so many bytes (0: than the zygote's own limit)
MEASURE_WHOLE = b"W"  # the same for a program that shares no memory with the zygote, because it was exec'd
KEEP = b"S"  # leave the scratch folder as it is for the next step; sent before the order

_COMMAND = struct.Struct("=cQQ")
_ENDING = struct.Struct("=Qi?")
MESSAGE_LIMIT = 65536


@dataclass(frozen=True)
class NurseryConfig:
    """All that a nursery and its zygotes need to know; passed as JSON, so no secret may ever be a field."""

    plan: Plan
    folder: str  # private to the service: sockets, mount point, scratch folders where mounts don't work
    preload: tuple[str, ...]  # one layer each, on top of those of the standard library
    memory_mib: int
    disk_mib: int
    processes: int
    toolchain: tuple[str, ...] = ()  # folders of a compiler, readable beside the system's
    groups: tuple[str, ...] = ()  # control groups, below which each zygote makes one of its own

    def to_json(self) -> str:
        """The configuration as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NurseryConfig:
        """The inverse of to_json."""
        fields = json.loads(text)
        plan = Plan(**fields.pop("plan"))
        preload, toolchain, groups = (tuple(fields.pop(name)) for name in ("preload", "toolchain", "groups"))
        return cls(plan=plan, preload=preload, toolchain=toolchain, groups=groups, **fields)

    def socket_path(self, layer: int) -> str:
        """Where the nursery of `layer` (see `layers`) listens."""
        return f"{self.folder}/layer{layer}"


class Order(NamedTuple):
    """How to run one program. Its stdin comes as a descriptor, its expected output not at all.

    `text` is None where it is too long for a message and comes as a descriptor, too. Sent by `marshal`: both sides are
    the same interpreter, the worker is trusted, and the program's process has little to touch, and so to copy.
    """

    timeout: float
    echo_last: bool
    seed: int | None
    text: bytes | None = None
    step: dict[str, Any] | None = None  # what is asked for beside running text: `step.Step`
    cases: dict[str, Any] | None = None  # tests of the text: `cases.Plan`; they come as a descriptor

    def to_bytes(self) -> bytes:
        """The order as one message."""
        return marshal.dumps(tuple(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Order:
        """The inverse of to_bytes."""
        return cls._make(marshal.loads(data))


class Ending(NamedTuple):
    """How the program with number `sequence` ended: its wait status, and whether it was killed for its
    memory.
    """

    sequence: int
    status: int
    over_memory: bool

    def to_bytes(self) -> bytes:
        """The ending as one message."""
        return _ENDING.pack(*self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Ending:
        """The inverse of to_bytes."""
        return cls._make(_ENDING.unpack(data))


def command(letter: bytes, sequence: int, limit: int = 0) -> bytes:
    """A control message about the program with number `sequence`."""
    return _COMMAND.pack(letter, sequence, limit)


def parse_command(data: bytes) -> tuple[bytes, int, int]:
    """The inverse of command."""
    letter, sequence, limit = _COMMAND.unpack(data)
    return letter, sequence, limit
