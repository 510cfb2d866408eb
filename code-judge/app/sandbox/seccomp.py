"""Seccomp: the system calls that no program has a use for are refused before they reach the kernel's depth.

A list of refusals, not of permissions: programs may use any library. What is refused: leaving or making
namespaces,
mounts, tracing and reading other processes, keys, BPF, perf, io_uring, memory that no limit counts (memfd,
SysV),
scheduling of others, every socket family but Unix, and clone3 (its flags lie in memory that a filter can't
read; libc
then uses clone).
"""

from __future__ import annotations

import ctypes
import errno
import struct

from app.sandbox import kernel

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER = {"x86_64": 0, "aarch64": 1}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1

# name: (x86_64, aarch64); None where the architecture has no such call
_REFUSED: dict[str, tuple[int | None, int]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "setns": (308, 268),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "personality": (135, 92),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
}
_REFUSED_X86_64 = (172, 173)  # iopl, ioperm
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_SOCKET = (41, 198)
_PRLIMIT64 = (302, 261)
_SETPRIORITY = (141, 140)
_SCHED_SETAFFINITY = (203, 122)
_X32_BIT = 0x40000000
_AF_UNIX = 1
_NEW_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | 0x02000000  # CLONE_NEWCGROUP
)

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(number: int, body: list[bytes]) -> list[bytes]:
    """Run `body` only for system call `number`; the accumulator holds the number before and after."""
    return [_op(_JEQ, number, 0, len(body)), *body]


def _unless_argument(index: int, expected: int, error: int) -> list[bytes]:
    """Refuse with `error` unless the low half of argument `index` equals `expected`."""
    return [
        _op(_LD, _OFFSET_ARGS + 8 * index),
        _op(_JEQ, expected, 1, 0),
        _op(_RET, _ERRNO | error),
    ]


def _program(unix_sockets: bool) -> bytes:
    machine = kernel.machine()
    column = _NUMBER[machine]
    reload_and_allow = [_op(_RET, _ALLOW)]
    ops = [_op(_LD, _OFFSET_ARCH), _op(_JEQ, _AUDIT_ARCH[machine], 1, 0), _op(_RET, _KILL_PROCESS)]
    ops += [_op(_LD, _OFFSET_NUMBER)]
    if machine == "x86_64":
        ops += [_op(_JGE, _X32_BIT, 0, 1), _op(_RET, _ERRNO | errno.ENOSYS)]
    refused = [numbers[column] for numbers in _REFUSED.values()]
    if machine == "x86_64":
        refused += _REFUSED_X86_64
    for number in refused:
        if number is not None:
            ops += _when(number, [_op(_RET, _ERRNO | errno.EPERM)])
    ops += _when(_CLONE3[column], [_op(_RET, _ERRNO | errno.ENOSYS)])
    clone = [_op(_LD, _OFFSET_ARGS), _op(_JSET, _NEW_NAMESPACES, 0, 1), _op(_RET, _ERRNO | errno.EPERM)]
    ops += _when(_CLONE[column], clone + reload_and_allow)
    socket = _unless_argument(0, _AF_UNIX, errno.ENETUNREACH)
    if not unix_sockets:
        socket = [_op(_RET, _ERRNO | errno.EPERM)]
    ops += _when(_SOCKET[column], socket + reload_and_allow)
    for number in (_PRLIMIT64[column], _SCHED_SETAFFINITY[column]):
        ops += _when(number, _unless_argument(0, 0, errno.EPERM) + reload_and_allow)
    priority = _unless_argument(0, 0, errno.EPERM) + _unless_argument(1, 0, errno.EPERM)
    ops += _when(_SETPRIORITY[column], priority + reload_and_allow)
    ops += [_op(_RET, _ALLOW)]
    return b"".join(ops)


def supported() -> bool:
    """True where this architecture's call numbers are known here."""
    return kernel.machine() in _AUDIT_ARCH


def install(unix_sockets: bool) -> None:
    """Filter this process and all its future children, for ever. Needs no_new_privs.

    unix_sockets: whether socket(AF_UNIX) is left; not where file names of sockets outside can be reached.
    """
    program = _program(unix_sockets)
    buffer = ctypes.create_string_buffer(program, len(program))

    class _SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    kernel.syscall("seccomp", _SECCOMP[kernel.machine()], _SET_MODE_FILTER, 0, ctypes.byref(fprog))
