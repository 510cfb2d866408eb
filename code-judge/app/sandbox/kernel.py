"""The few kernel calls that Python 3.11 has no name for. Every function raises OSError with the call's
name.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial

libc = ctypes.CDLL(None, use_errno=True)
_holding_the_lock = ctypes.PyDLL(None, use_errno=True)  # the interpreter's, which a child could never get

Call = tuple[str, Callable[[], "int | None"]]
"""A name and a call into C, with its arguments: prepared before a fork, it touches few pages after it."""

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_MACHINE = os.uname().machine
_ZERO = ctypes.c_ulong(0)
_CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITY = (ctypes.c_uint32 * 6)()


def machine() -> str:
    """The kernel's name of this architecture, for example "x86_64"."""
    return _MACHINE


def syscall(name: str, number: int, *args: object) -> int:
    """Call system call `number`; integers are passed as 64 bits."""
    result = libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)
    )
    return checked(name, int(result))


def checked(name: str, result: int) -> int:
    """The result of the call `name` of libc, if it is no failure."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def perform(calls: Iterable[Call]) -> None:
    """Make the calls in turn. Raises OSError at the first that fails."""
    for name, call in calls:
        if call():
            checked(name, -1)


def fork() -> int:
    """fork(2), without what `os.fork` has the interpreter and the imported modules do in the child.

    They make locks anew and seed: pages that the kernel then copies, for every child. Only for a process with one
    thread that holds no lock. What the child forks by `os.fork` is as always. Raises OSError.
    """
    return checked("fork", _holding_the_lock.fork())


def _prctl(name: str, option: int, a: int = 0, b: int = 0) -> None:
    perform([_prctl_call(name, option, a, b)])


def _prctl_call(name: str, option: int, a: int = 0, b: int = 0) -> Call:
    call = partial(libc.prctl, ctypes.c_int(option), ctypes.c_ulong(a), ctypes.c_ulong(b), _ZERO, _ZERO)
    return name, call


def die_with_parent(parent: int, sig: int = signal.SIGKILL) -> None:
    """Have the kernel send `sig` to this process when its parent thread ends; at once if `parent` is gone."""
    _prctl("PR_SET_PDEATHSIG", _PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os.kill(os.getpid(), sig)


def set_dumpable(dumpable: bool) -> None:
    """False keeps every process without CAP_SYS_PTRACE out of this one's memory and /proc entries."""
    perform([dumpable_call(dumpable)])


def dumpable_call(dumpable: bool) -> Call:
    """`set_dumpable`, prepared."""
    return _prctl_call("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, int(dumpable))


def set_no_new_privs() -> None:
    """No exec can ever give this process or its children more rights (set-uid programs lose their effect)."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def become_subreaper() -> None:
    """Orphaned descendants become children of this process instead of init's."""
    _prctl("PR_SET_CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` (CLONE_NEW*) for new ones."""
    checked("unshare", libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2); the error names the target."""
    result = libc.mount(
        source.encode(),
        target.encode(),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    checked(f"mount {target}", result)


def unmount(target: str) -> None:
    """Detach the mount at `target`, busy or not."""
    checked(f"umount {target}", libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace and move the old one to `put_old`."""
    number = _SYS_PIVOT_ROOT[machine()]
    syscall("pivot_root", number, ctypes.c_char_p(new_root.encode()), ctypes.c_char_p(put_old.encode()))


def drop_bounding_set() -> None:
    """No exec can give back any capability. Needs CAP_SETPCAP; without it there is nothing to drop."""
    for capability in range(_LAST_CAPABILITY + 1):
        try:
            _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, capability)
        except OSError:
            return


def drop_capabilities_calls() -> list[Call]:
    """What empties the permitted, effective, inheritable and ambient sets of a process."""
    pointers = ctypes.byref(_CAPABILITY_HEADER), ctypes.byref(_NO_CAPABILITY)
    return [
        _prctl_call("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL),
        ("capset", partial(libc.syscall, ctypes.c_long(_SYS_CAPSET[_MACHINE]), *pointers)),
    ]
