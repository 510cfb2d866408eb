"""What an order may ask for beside running Python text: files in the scratch folder, another program instead
of the interpreter, files back, less memory.

This runs in the process of the program, behind all its walls, and the walls stay: Landlock, seccomp,
no_new_privs, the user and the hard limits are the process's own, and an exec changes none of them.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
import struct
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

NOT_STARTED = b"not started\n"  # in the report: the program was never run, by no fault of its own
_LENGTH = struct.Struct("=q")
_ABSENT = -1


@dataclass(frozen=True)
class Step:
    """The part of an order for the steps of a job. Paths are relative to the scratch folder."""

    argv: tuple[str, ...] | None = None  # run this instead of the text; argv[0] is not looked up in any PATH
    environment: tuple[tuple[str, str], ...] = ()
    files: tuple[
        tuple[str, int, bool], ...
    ] = ()  # path, bytes, executable; the contents come as one descriptor
    send: tuple[str, ...] | None = None  # run nothing: write these files to stdout, see `received`
    less_mib: int = 0  # memory to take away from what the zygote allows

    def to_dict(self) -> dict[str, Any]:
        """The fields, for `Order.step`."""
        return asdict(self)


def begin(fields: dict[str, Any], contents: int | None, report: int) -> None:
    """Do what a step asks for. Returns if it is the text that is to be run, else ends the process.

    contents: descriptor of all files' bytes, one after the other. report: descriptor to say NOT_STARTED on.
    """
    step = Step(**fields)
    try:
        if step.less_mib:
            _take_memory(step.less_mib << 20)
        if contents is not None:
            _place(step.files, contents)
        if step.send is not None:
            for path in step.send:
                _send(path)
            os._exit(0)
        if step.argv is not None:
            _execute(step.argv, dict(step.environment))
    except OSError as error:
        where = f" {error.filename}:" if error.filename else ""
        os.write(2, f"could not be started:{where} {error.strerror}\n".encode())
        os.write(report, NOT_STARTED)
        os._exit(127)


def _take_memory(less: int) -> None:
    for name, share in ((resource.RLIMIT_DATA, less), (resource.RLIMIT_AS, 4 * less)):
        hard = resource.getrlimit(name)[1]
        if hard != resource.RLIM_INFINITY:
            hard = max(0, hard - share)
            resource.setrlimit(name, (hard, hard))


def _place(files: tuple[tuple[str, int, bool], ...], contents: int) -> None:
    for path, length, executable in files:
        if folder := os.path.dirname(path):
            os.makedirs(folder, 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        target = os.open(path, flags, 0o700 if executable else 0o600)
        try:
            _copy(contents, target, length)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(target)
    os.close(contents)


def _copy(source: int, target: int, length: int) -> None:
    while length:
        sent = os.sendfile(target, source, None, length)
        if not sent:
            raise OSError(0, "its content ended early")
        length -= sent


def _send(path: str) -> None:
    """Write the length of a regular file and its bytes to stdout; _ABSENT alone for anything else."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        os.write(1, _LENGTH.pack(_ABSENT))
        return
    facts = os.fstat(source)
    if stat.S_ISREG(facts.st_mode):
        os.write(1, _LENGTH.pack(facts.st_size))
        _copy(source, 1, facts.st_size)
    else:
        os.write(1, _LENGTH.pack(_ABSENT))
    os.close(source)


def received(paths: tuple[str, ...], data: bytes) -> dict[str, bytes]:
    """The files in what a step with `send` wrote, by path; what does not exist is left out. Raises ValueError
    if the data is cut short.
    """
    found: dict[str, bytes] = {}
    position = 0
    for path in paths:
        if len(data) < position + _LENGTH.size:
            raise ValueError(f"the data ends before {path}")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if length >= 0:
            if len(data) < position + length:
                raise ValueError(f"the data ends within {path}")
            found[path] = data[position : position + length]
            position += length
    return found


def _execute(argv: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    # What is ignored stays ignored across an exec: by Python, by us, by the shell that started us (nohup).
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.execve(argv[0], argv, environment)
