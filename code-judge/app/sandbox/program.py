"""The process that runs one job: receives it, runs it as __main__, reports a traceback as the user wants to
read it.

Everything here runs before or in the hands of hostile code, so nothing here is believed by the other side
except the
wait status, which the kernel gives. The report descriptor carries hints for the text of the answer only.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import contextlib
import faulthandler
import io
import linecache
import os
import resource
import signal
import socket
import sys
import traceback
import types
from functools import partial
from typing import Any, NoReturn

from app.sandbox import cases, installed, kernel, step
from app.sandbox.protocol import MESSAGE_LIMIT, NurseryConfig, Order

FILENAME = "<code>"
# The name of a module with tests: as if it were imported, so that `if __name__ == "__main__"` is skipped.
_TESTED = "solution"
_EAGER_WRITES = 256
_REHEARSALS = 16
_FUTURE_FLAGS = 0x1FF0000
_STACK = 64 << 20
SPARE_MIB = 128  # stacks and arenas of threads are reserved long before they are used
_OPEN_FILES = 256
_REPORT = 60  # the descriptor of the report; below 64 the kernel has room for it without an allocation
_TARGETS = (0, 1, 2, _REPORT)
_main_module = types.ModuleType("__main__")  # the one that the next program runs in
_ANCILLARY_SIZE = socket.CMSG_SPACE(6 * 4)


def prepare() -> None:
    """Do in the zygote, once, what every program would do: what a program touches, the kernel copies for it."""
    faulthandler.disable()
    empty = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    reader, writer = os.pipe()  # so that the streams know what they will write to
    for source, target in ((empty, 0), (writer, 1), (empty, _REPORT)):
        os.dup2(source, target, inheritable=target < 2)
    _open_streams()
    _rehearse()
    for descriptor in (empty, reader, writer):
        os.close(descriptor)
    _open_streams()
    _answer_interrupts()
    global _main_module
    _main_module = _module("__main__")
    sys.argv[:] = [FILENAME]
    for name in [name for name in sys.modules if name == "app" or name.startswith("app.")]:
        del sys.modules[name]  # not the service's: a job's `import app` must fail or find its own


def _rehearse() -> None:
    """Run a small program until the interpreter has specialized the code on the way, which writes into it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for _ in range(_REHEARSALS):
            kernel.perform([("nothing", partial(int))])
            message = Order(1.0, True, None, b"x = 1\nprint(x)\nx").to_bytes()
            socket.send_fds(theirs, [message], [0, 1, 2, _REPORT])
            order, source, _ = _take(ours)
            _, echo_last, *_ = order
            _run(source, echo_last, _module("__main__"))
            _join_threads()
            _flush()


def limit_resources(config: NurseryConfig, spare_mib: int) -> None:
    """Set the hard limits that all programs of a zygote inherit from it. spare_mib: address space for what is
    reserved and not used, as most of a stack is.
    """
    base = _virtual_sizes()
    memory = config.memory_mib << 20
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_FSIZE: config.disk_mib << 20,
        resource.RLIMIT_DATA: base["VmData"] + memory + (spare_mib << 20),
        resource.RLIMIT_AS: base["VmSize"] + 4 * memory + (2 << 30),
        resource.RLIMIT_STACK: _STACK,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(name)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def limit_processes_call(count: int) -> kernel.Call:
    """What limits processes and threads for good. Only where the uid is the job's alone: the kernel counts by uid."""
    return "RLIMIT_NPROC", partial(resource.setrlimit, resource.RLIMIT_NPROC, (count, count))


def _virtual_sizes() -> dict[str, int]:
    sizes = {"VmData": 256 << 20, "VmSize": 1 << 30}
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] = int(rest.split()[0]) << 10
    return sizes


def main(jobs: socket.socket, descriptor: int, scratch: str) -> NoReturn:
    """Wait for one order on `jobs`, which has `descriptor`, and run it.

    Its descriptors: stdin, stdout, stderr, report, the text if the order does not hold it, what its step
    or its tests have.
    """
    order, source, contents = _take(jobs)
    os.close(descriptor)
    timeout, echo_last, seed, _, wanted, plan = order
    cpu = int(timeout) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    if seed is not None:
        import random

        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
    if wanted is not None:
        step.begin(wanted, contents, _REPORT)
    sys.path.insert(0, scratch)
    if plan is not None:
        assert contents is not None
        with open(contents, "rb") as file:
            tests = cases.Cases(plan, file.read(), _REPORT, FILENAME)
        del order, plan  # a program has to look for the nonce elsewhere
        status = _run(source, False, _module(_TESTED), tests)
        _flush()
        os._exit(status)  # what the program has left, threads and exit handlers, is none of its tests
    status = _run(source, echo_last, _main_module)
    for finish in (_join_threads, atexit._run_exitfuncs, _flush):
        try:
            finish()
        except BaseException:
            status = status or 1
    os._exit(status)


def _take(jobs: socket.socket) -> tuple[Order, str, int | None]:
    """The next order, its text, and the descriptor of what its step or its tests have."""
    data, ancillary, _, _ = jobs.recvmsg(MESSAGE_LIMIT, _ANCILLARY_SIZE)
    if not data:
        os._exit(0)  # the worker left
    order = Order.from_bytes(data)
    descriptors = memoryview(ancillary[0][2]).cast("i").tolist()
    for target in _TARGETS:
        descriptor = descriptors.pop(0)
        os.dup2(descriptor, target, target < 3)
        os.close(descriptor)
    text = order.text
    if text is None:
        with open(descriptors.pop(0), "rb") as file:
            text = file.read()
    return order, text.decode(), descriptors[0] if descriptors else None


class _EagerStream(io.TextIOWrapper):
    """Line by line at first, so that a killed program's few lines are out; in blocks once there are many."""

    def __init__(self, raw: io.BufferedWriter) -> None:
        super().__init__(raw, encoding="utf-8", errors="strict")
        self._left = _EAGER_WRITES
        self.write = self._write_eagerly  # type: ignore[method-assign]

    def _write_eagerly(self, text: str) -> int:
        written = io.TextIOWrapper.write(self, text)
        if "\n" in text:
            self.flush()
            self._left -= 1
            if self._left == 0:
                del self.write  # from here the C method, without us between
        return written


def _open_streams() -> None:
    streams = {
        "stdin": open(0, encoding="utf-8", errors="surrogateescape", closefd=False),  # noqa: SIM115
        "stdout": _EagerStream(io.BufferedWriter(io.FileIO(1, "w", closefd=False))),
        "stderr": open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False),  # noqa: SIM115
    }
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _answer_interrupts() -> None:
    """On SIGXCPU (the worker: time is over) say where the program is, even in the middle of a C call, and
    flush.
    """

    def flush_and_leave(number: int, frame: types.FrameType | None) -> None:
        _flush()
        os._exit(128 + number)

    signal.signal(signal.SIGXCPU, flush_and_leave)
    faulthandler.register(signal.SIGXCPU, file=_REPORT, all_threads=False, chain=True)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__):
        try:  # noqa: SIM105 - a context manager would be more to touch
            stream.flush()  # type: ignore[union-attr]
        except Exception:
            pass


def _join_threads() -> None:
    threading: Any = sys.modules.get("threading")
    if threading is not None and (threading._shutdown_locks or threading._threading_atexits):
        threading._shutdown()


def _module(name: str) -> types.ModuleType:
    """An empty module for the program, in the place of __main__ and of what else it is called."""
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    module.__dict__["__file__"] = FILENAME
    sys.modules["__main__"] = sys.modules[name] = module
    return module


def _run(source: str, echo_last: bool, module: types.ModuleType, tests: cases.Cases | None = None) -> int:
    """Run `source` in `module`, then its tests; return the exit status."""
    lines = source.splitlines(keepends=True)
    linecache.cache[FILENAME] = (len(source), None, lines, FILENAME)
    try:
        for code in _compile(source, echo_last):
            exec(code, module.__dict__)
        if tests is not None:
            tests.run(module)
    except SystemExit as stop:
        return _exit_status(stop.code)
    except BaseException as error:
        _print_exception(error)
        with contextlib.suppress(OSError):
            os.write(_REPORT, f"exception {type(error).__name__}\n".encode(errors="replace"))
        return 1
    return 0


def _compile(source: str, echo_last: bool) -> list[types.CodeType]:
    """The code to run in order; with `echo_last` a last expression is apart and shows its value, as in a
    notebook,
    unless a semicolon ends it."""
    if not echo_last:
        return [compile(source, FILENAME, "exec", dont_inherit=True)]
    tree = compile(source, FILENAME, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    if not tree.body or not isinstance(tree.body[-1], ast.Expr) or _silenced(source, tree.body[-1]):
        return [compile(tree, FILENAME, "exec", dont_inherit=True)]
    last = tree.body.pop()
    body = compile(tree, FILENAME, "exec", dont_inherit=True)
    flags = body.co_flags & _FUTURE_FLAGS
    return [body, compile(ast.Interactive([last]), FILENAME, "single", flags, dont_inherit=True)]


def _silenced(source: str, last: ast.Expr) -> bool:
    rest = source.encode().splitlines()[(last.end_lineno or 1) - 1][last.end_col_offset or 0 :]
    return rest.lstrip().startswith(b";")


def _exit_status(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    with contextlib.suppress(BaseException):
        print(code, file=sys.stderr)
    return 1


def _print_exception(error: BaseException) -> None:
    """Print the traceback without the frame of this file."""
    if isinstance(error, ModuleNotFoundError):
        with contextlib.suppress(Exception):
            installed.explain(error)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    try:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        if sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, frames)
            return
        shown = traceback.TracebackException(type(error), error, frames, compact=True)
        sys.stderr.write("".join(shown.format()))
        sys.stderr.flush()
    except BaseException:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__} (and its traceback could not be printed)\n".encode())
