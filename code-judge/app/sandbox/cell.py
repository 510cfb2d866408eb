"""A worker's handle to its zygote: run one program at a time, own its deadline, read its output, keep
little of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.sandbox.capture import Capture
from app.sandbox.protocol import (
    INTERRUPT,
    KEEP,
    KILL,
    MEASURE,
    MEASURE_WHOLE,
    MESSAGE_LIMIT,
    Ending,
    Order,
    command,
)

_CHUNK = 1 << 16
_GRACE = 0.06  # seconds between "time is over" and the kill, to say where the program was
_BACKSTOP = 2.0  # seconds for the zygote to report a death before it is killed itself
_FAREWELL = 0.5  # seconds for the zygote to clean up when it is not needed any more
_TICK = 0.05  # seconds between two looks at the memory
_REPORT_LIMIT = 1 << 14
_HELLO_TIMEOUT = 20.0
_INLINE = 32768  # bytes of a text that still travels with its order


class SandboxLost(Exception):
    """The zygote is gone or does not answer. The program's outcome is unknown; a new Cell may run it again."""


class ClientLeft(Exception):
    """Nobody waits for the program any more; it was killed."""


@dataclass
class Outcome:
    """What came of a program. `status` is the wait status; `report` what the program process said of
    itself, which
    hostile code can forge."""

    status: int
    seconds: float
    timed_out: bool
    over_memory: bool
    report: bytes


class Cell:
    """The connection of a worker to one zygote."""

    def __init__(self, path: str, slot: int, left: Callable[[], bool] = lambda: False, **limits: int) -> None:
        """Ask the nursery at `path` for a zygote for worker `slot`. Raises SandboxLost with the reason.

        left: says of the program that runs whether it can be given up; asked every 50 ms.
        limits: `memory_mib` and `spare_mib` where they are not those of all programs, see `Zygote`.
        """
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._jobs, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sequence = 0
        self._left = left
        self._pidfd: int | None = None
        try:
            with theirs:
                self._control.settimeout(_HELLO_TIMEOUT)
                self._control.connect(path)
                hello = json.dumps({"slot": slot, **limits}).encode()
                socket.send_fds(self._control, [hello], [theirs.fileno()])
            answer, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_LIMIT, 1)
        except OSError as error:
            self.close()
            raise SandboxLost(f"no zygote at {path}: {error}") from error
        facts = json.loads(answer) if answer else {"error": "it ended without a word"}
        if "error" in facts:
            self.close()
            raise SandboxLost(f"the zygote could not enter its sandbox: {facts['error']}")
        self._pidfd = descriptors[0]
        self._control.setblocking(False)
        self._idle = select.poll()
        self._idle.register(self._control, select.POLLIN)

    def close(self) -> None:
        """End the zygote, and with it everything that it ever started. Hung up on, it removes its scratch folder
        itself; one that does not is killed.
        """
        self._control.close()
        self._jobs.close()
        if self._pidfd is not None:
            ended = select.poll()
            ended.register(self._pidfd, select.POLLIN)
            ended.poll(_FAREWELL * 1000)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = None

    def run(
        self,
        text: bytes,
        stdin: bytes,
        order: Order,
        stdout: Capture,
        stderr: Capture,
        contents: bytes | None = None,
        keep: bool = False,
        memory: int = 0,
        report: Capture | None = None,
    ) -> Outcome:
        """Run the program `text`; its output goes into the two captures while it runs.

        contents: the bytes of the files of `order.step` or of the tests of `order.cases`, if it has any. keep:
        leave the scratch folder as it is for the next run, or for `discard`. memory: bytes that the program may
        use, if not what the zygote allows. report: gets what the program's process says of itself, in place of
        the outcome.
        Returns within order.timeout + about 0.1 s. Raises SandboxLost, and is closed, if the zygote failed, and
        ClientLeft, and is closed, if the program was given up.
        """
        if self._idle.poll(0):
            self.close()
            raise SandboxLost("the zygote ended between two jobs")
        passed = [_stdin(stdin)]
        pipes = [os.pipe() for _ in range(3)]
        try:
            passed += [write for _, write in pipes]
            if len(text) <= _INLINE:
                order = order._replace(text=text)
            else:
                passed.append(_memory_file("text", text))
            if contents is not None:
                passed.append(_memory_file("contents", contents))
            whole = order.step is not None and order.step["argv"] is not None
            measure = command(MEASURE_WHOLE if whole else MEASURE, self._sequence, memory)
            started = time.monotonic()
            try:
                if keep:
                    self._control.send(command(KEEP, self._sequence))
                socket.send_fds(self._jobs, [order.to_bytes()], passed)
            finally:
                for descriptor in passed:
                    os.close(descriptor)
            said = bytearray()
            readers = [read for read, _ in pipes]
            run = _Run(
                self._control,
                readers,
                [stdout, stderr, said if report is None else report],
                started,
                order.timeout,
                self._sequence,
                measure,
                self._left,
            )
            ending = run.wait()
            seconds = time.monotonic() - started
            run.drain()
        except (OSError, SandboxLost) as error:
            self.close()
            raise SandboxLost(str(error)) from error
        except ClientLeft:
            self.close()  # kills the program, and empties its scratch folder
            raise
        finally:
            for read, _ in pipes:
                os.close(read)
        self._sequence += 1
        return Outcome(ending.status, seconds, run.interrupted, ending.over_memory, bytes(said))

    def discard(self) -> None:
        """Empty the scratch folder that a run with `keep` has left. Raises SandboxLost as `run` does."""
        try:
            self._control.send(command(KILL, self._sequence))  # what waits for an order there
            if not self._idle.poll(_BACKSTOP * 1000) or not self._control.recv(MESSAGE_LIMIT):
                raise SandboxLost("the zygote did not empty its scratch folder")
        except (OSError, SandboxLost) as error:
            self.close()
            raise SandboxLost(str(error)) from error
        self._sequence += 1


class _Run:
    """One program on its way: reads its three pipes and commands the zygote until the zygote says that it
    ended.
    """

    def __init__(
        self,
        control: socket.socket,
        readers: list[int],
        sinks: list[Capture | bytearray],
        started: float,
        timeout: float,
        sequence: int,
        measure: bytes,
        left: Callable[[], bool],
    ) -> None:
        self.interrupted = False
        self._left = left
        self._measure = measure
        self._control = control
        self._sinks: dict[int, Capture | bytearray] = dict(zip(readers, sinks, strict=True))
        self._sequence = sequence
        self._deadline = started + timeout
        self._poller = select.poll()
        self._poller.register(control, select.POLLIN)
        for reader in readers:
            os.set_blocking(reader, False)
            self._poller.register(reader, select.POLLIN)

    def wait(self) -> Ending:
        """Enforce the deadline and the memory limit until the zygote reports the end. Raises SandboxLost
        or ClientLeft.
        """
        steps = [
            (self._deadline, INTERRUPT),
            (self._deadline + _GRACE, KILL),
            (self._deadline + _BACKSTOP, b""),
        ]
        now = time.monotonic()
        measure_at = now + _TICK
        while True:
            now = time.monotonic()
            if now >= steps[0][0]:
                _, letter = steps.pop(0)
                if not letter:
                    raise SandboxLost("the zygote did not report the end of a killed program")
                self.interrupted = True
                self._control.send(command(letter, self._sequence))
                continue
            if now >= measure_at:
                if self._left():
                    raise ClientLeft
                self._control.send(self._measure)
                measure_at = now + _TICK
            wait = min(steps[0][0], measure_at) - now
            for descriptor, _ in self._poller.poll(max(1.0, wait * 1000)):
                if descriptor == self._control.fileno():
                    message = self._control.recv(MESSAGE_LIMIT)
                    if not message:
                        raise SandboxLost("the zygote ended in the middle of a job")
                    return Ending.from_bytes(message)
                self._read(descriptor)

    def drain(self) -> None:
        """Read what is still in the pipes, once all their writers are dead."""
        for descriptor in list(self._sinks):
            while self._read(descriptor):
                pass
        for sink in self._sinks.values():
            if isinstance(sink, Capture):
                sink.feed(b"", final=True)

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                self._poller.unregister(descriptor)
            return False
        sink = self._sinks[descriptor]
        if isinstance(sink, Capture):
            sink.feed(data)
        elif len(sink) < _REPORT_LIMIT:
            sink += data[: _REPORT_LIMIT - len(sink)]
        return True


def _memory_file(name: str, data: bytes) -> int:
    """A descriptor that reads `data` from its start and can't be written or grown, whoever opens it again."""

    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _stdin(data: bytes) -> int:
    return _memory_file("stdin", data) if data else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
