"""Landlock: a process gives up files, TCP and signals for ever, without any privilege (Linux 5.13 and later).

Numbers and structures are those of <linux/landlock.h>; what a kernel does not know is left out by its ABI
version.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from functools import partial

from app.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE = 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_DEVICES_FORBIDDEN = 1 << 6 | 1 << 11  # MAKE_CHAR, MAKE_BLOCK
_FS_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NET_TCP = 0b11
_SCOPES = 0b11  # abstract Unix sockets, signals


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """The kernel's Landlock ABI version; 0 where there is none."""
    try:
        return kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def ruleset(abi_version: int, readable: Iterable[str], writable: Iterable[str]) -> int:
    """Return the descriptor of a ruleset: read and execute beneath `readable`, everything but devices beneath
    `writable`, no TCP (ABI 4), no signals or abstract sockets out of the domain (ABI 6). Absent paths are
    skipped.
    """
    handled = (1 << _FS_BITS_BY_ABI[min(abi_version, 5)]) - 1
    attr = _RulesetAttr(handled, _NET_TCP if abi_version >= 4 else 0, _SCOPES if abi_version >= 6 else 0)
    size = 24 if abi_version >= 6 else 16 if abi_version >= 4 else 8
    fd = kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.byref(attr), size, 0)
    for path in readable:
        _allow(fd, path, _READ & handled)
    for path in writable:
        _allow(fd, path, handled & ~_DEVICES_FORBIDDEN)
    return fd


def _allow(ruleset_fd: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_RIGHTS
        rule = _PathBeneath(rights, fd)
        arguments = (ruleset_fd, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        kernel.syscall(f"landlock_add_rule {path}", _ADD_RULE, *arguments)
    finally:
        os.close(fd)


def restrict_self_call(ruleset_fd: int) -> kernel.Call:
    """What puts a process and all its future children under the ruleset. Needs no_new_privs."""
    arguments = (ctypes.c_long(number) for number in (_RESTRICT_SELF, ruleset_fd, 0))
    return "landlock_restrict_self", partial(kernel.libc.syscall, *arguments)
