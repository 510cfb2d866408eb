"""A job in several steps, all in the scratch folder of one sandbox: compile, run, fetch files."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any

from app import cpp, verdict
from app.job import Job, Steps, outcome
from app.sandbox.capture import Capture
from app.sandbox.cell import Cell, Outcome, SandboxLost
from app.sandbox.protocol import Order
from app.sandbox.step import NOT_STARTED, Step, received
from app.settings import Settings

SPARE_MIB = 1024  # a thread of a compiled program reserves a stack as large as the main one
FETCH_SECONDS = 5.0  # for the worker to read files out of a scratch folder
_MESSAGE_LIMIT = 1 << 16  # characters kept of what a compiler says


class Load(Capture):
    """The first `limit` bytes of a stream as they are, and whether there were more."""

    def __init__(self, limit: int) -> None:
        super().__init__(0)
        self.data = bytearray()
        self.most = limit
        self.complete = True

    def feed(self, data: bytes, final: bool = False) -> None:
        """Take the next bytes."""
        room = self.most - len(self.data)
        self.data += data[:room]
        self.complete = self.complete and len(data) <= room


class Stepper:
    """Runs the jobs of one worker that have `steps`."""

    def __init__(self, settings: Settings, toolchain: cpp.Toolchain | None) -> None:
        self.settings = settings
        self.toolchain = toolchain
        self.memory = cpp.Memory(settings.cpp_cache << 20)

    def run(self, job: Job, cell: Cell) -> dict[str, Any]:
        """The answer of a job; `cell` is of the kind that its language needs. Raises SandboxLost and
        ClientLeft, as `Cell.run` does; the sandbox is clean, or gone, whatever happened.
        """
        steps = job.steps
        assert steps is not None
        files = {name: base64.b64decode(content) for name, content in steps.files.items()}
        compiled = None
        if steps.language == "cpp":
            if self.toolchain is None:
                return outcome(reason="invalid_input", stderr=cpp.NO_COMPILER)
            compiled = self._compiled(job, steps, files, cell, self.toolchain)
            if compiled.program is None:
                return self._not_compiled(compiled, steps)
            files = {cpp.PROGRAM: compiled.program, **files}
        answer, sent = self._execute(job, steps, files, cell)
        if compiled is not None and steps.whole:
            answer["steps"]["compile"] = _command(compiled)
        if steps.whole:
            answer["steps"].update(sent)
        return answer

    def _execute(
        self, job: Job, steps: Steps, files: Mapping[str, bytes], cell: Cell
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the program with `files` beside it; its answer and what was fetched."""
        native = steps.language == "cpp"
        allowed = self.settings.max_memory
        limit = min(steps.memory_mib or allowed, allowed)
        step = Step(
            argv=(f"./{cpp.PROGRAM}",) if native else None,
            files=tuple((name, len(data), native and name == cpp.PROGRAM) for name, data in files.items()),
            less_mib=(cpp.native_memory(self.settings) if native else allowed) - limit,
        )
        text = b"" if native else job.text.encode()
        kept = self.settings.max_run_code_output if steps.whole else self.settings.max_stdout_error_length
        stdout, stderr = verdict.captures(job, kept)
        seen = cell.run(
            text,
            job.stdin.encode(),
            Order(job.timeout, job.echo_last, job.seed, step=step.to_dict() if step != Step() else None),
            stdout,
            stderr,
            b"".join(files.values()) if files else None,
            keep=bool(steps.fetch),
            memory=limit << 20,
        )
        sent = self._fetch(steps.fetch, cell) if steps.fetch else {"files": {}, "message": ""}
        if native and NOT_STARTED in seen.report:
            return outcome(reason="internal_error", stderr=stderr.text(), retryable=True), sent
        answer = verdict.of_program(job, seen, stdout, stderr, limit)
        if steps.whole:
            answer["steps"] = {"compile": None, "run": _ran(seen, answer)}
        return answer, sent

    def _compiled(
        self,
        job: Job,
        steps: Steps,
        files: Mapping[str, bytes],
        cell: Cell,
        toolchain: cpp.Toolchain,
    ) -> cpp.Compiled:
        key = cpp.key(toolchain, job.text, files)
        found = self.memory.get(key)
        if found is None:
            found = self._compile({cpp.SOURCE: job.text.encode(), **files}, steps, cell, toolchain)
            self.memory.put(key, found)
        return found

    def _compile(
        self, files: Mapping[str, bytes], steps: Steps, cell: Cell, toolchain: cpp.Toolchain
    ) -> cpp.Compiled:
        limit = self.settings.max_compile_memory
        step = Step(
            argv=toolchain.command,
            environment=toolchain.environment,
            files=tuple((name, len(data), False) for name, data in files.items()),
            less_mib=cpp.native_memory(self.settings) - limit,
        )
        timeout = min(steps.compile_timeout, self.settings.max_compile_time)
        order = Order(timeout, False, None, step=step.to_dict())
        stdout, stderr = Capture(_MESSAGE_LIMIT), Capture(_MESSAGE_LIMIT)
        contents = b"".join(files.values())
        seen = cell.run(b"", b"", order, stdout, stderr, contents, keep=True, memory=limit << 20)
        program = None
        if seen.status == 0 and not seen.timed_out and not seen.over_memory:
            program = self._read((cpp.PROGRAM,), cell, self.settings.max_disk << 20).get(cpp.PROGRAM)
            if program is None:
                cell.close()
                raise SandboxLost("the compiled program could not be read")
        else:
            cell.discard()
        if NOT_STARTED in seen.report:
            cell.close()
            raise SandboxLost(f"{toolchain.path} {stderr.text().strip()}")
        message = stderr.text() + _compile_note(seen, timeout, limit)
        code = None if seen.timed_out else _return_code(seen.status)
        return cpp.Compiled(program, stdout.text(), message, code, seen.seconds, seen.over_memory)

    def _not_compiled(self, compiled: cpp.Compiled, steps: Steps) -> dict[str, Any]:
        kept = self.settings.max_run_code_output if steps.whole else self.settings.max_stdout_error_length
        stderr = Capture(kept)
        stderr.feed(compiled.stderr.encode(), final=True)
        timed_out = compiled.return_code is None
        answer = outcome(stderr=stderr.text(), reason="worker_timeout" if timed_out else "")
        if steps.whole:
            answer["steps"] = {"compile": _command(compiled), "run": None, "files": {}, "message": ""}
        return answer

    def _fetch(self, names: tuple[str, ...], cell: Cell) -> dict[str, Any]:
        most = self.settings.max_fetch << 20
        try:
            files = self._read(names, cell, most)
        except ValueError:
            text = f"the files to fetch are too large: {self.settings.max_fetch} MiB together are allowed"
            return {"files": {}, "message": text}
        encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
        return {"files": encoded, "message": ""}

    def _read(self, names: tuple[str, ...], cell: Cell, most: int) -> dict[str, bytes]:
        """Files of the scratch folder, read by a process behind the same walls as the program that wrote
        them: whatever it made of a name, no more is found than it could read itself. Raises ValueError if
        they are too large.
        """
        data, complaints = Load(most + 16 * len(names)), Capture(1000)
        order = Order(FETCH_SECONDS, False, None, step=Step(send=names).to_dict())
        seen = cell.run(b"", b"", order, data, complaints)
        if not data.complete:
            raise ValueError("too large")
        if seen.status != 0:
            return {}
        return received(names, bytes(data.data))


def _return_code(status: int) -> int:
    return os.waitstatus_to_exitcode(status)


def _compile_note(seen: Outcome, timeout: float, limit_mib: int) -> str:
    if seen.timed_out:
        return f"Timed out: the compilation was stopped after {timeout:g} s\n"
    if seen.over_memory:
        return f"MemoryError: the compilation was stopped: it used more than {limit_mib} MiB of memory\n"
    return ""


def _command(compiled: cpp.Compiled) -> dict[str, Any]:
    finished = compiled.return_code is not None
    return {
        "status": "Finished" if finished else "TimeLimitExceeded",
        "execution_time": round(compiled.seconds, 6),
        "return_code": compiled.return_code,
        "stdout": compiled.stdout,
        "stderr": compiled.stderr,
    }


def _ran(seen: Outcome, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": "TimeLimitExceeded" if seen.timed_out else "Finished",
        "execution_time": round(seen.seconds, 6),
        "return_code": None if seen.timed_out else _return_code(seen.status),
        "stdout": answer["stdout"],
        "stderr": answer["stderr"],
    }
