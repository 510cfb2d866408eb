"""Several steps in one sandbox: what one leaves the next one finds, and nobody else; whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_service import eventually

from app.cpp import Toolchain
from app.job import Job, Steps
from app.sandbox import isolation, nursery
from app.sandbox.capture import Capture
from app.sandbox.cell import Cell, Outcome, SandboxLost
from app.sandbox.protocol import NurseryConfig, Order
from app.sandbox.step import NOT_STARTED, Step, received
from app.settings import Settings
from app.steps import SPARE_MIB, Load, Stepper

NAMESPACES = frozenset(("user", "mount", "pid", "net", "ipc"))
LIST = "import os; print(sorted(os.listdir('.')))"


class Box:
    """A cell, and what the last program printed in it."""

    def __init__(self, config: NurseryConfig) -> None:
        self.config = config
        self.cell = Cell(config.socket_path(0), 0)

    def run(
        self,
        text: str = "",
        step: Step | None = None,
        contents: bytes | None = None,
        keep: bool = False,
        timeout: float = 5.0,
        memory_mib: int = 0,
    ) -> Outcome:
        order = Order(timeout, False, None, step=None if step is None else step.to_dict())
        self.stdout, self.stderr = Capture(2000), Capture(2000)
        return self.cell.run(
            text.encode(), b"", order, self.stdout, self.stderr, contents, keep, memory_mib << 20
        )

    def prints(self, text: str, **options: object) -> str:
        seen = self.run(text, **options)  # type: ignore[arg-type]
        assert seen.status == 0, self.stderr.text()
        return self.stdout.text()

    def send(self, *names: str) -> dict[str, bytes]:
        data = Load(1 << 20)
        order = Order(5.0, False, None, step=Step(send=names).to_dict())
        assert self.cell.run(b"", b"", order, data, Capture(100), keep=True).status == 0
        return received(names, bytes(data.data))


@pytest.fixture(scope="module", params=["all that the kernel offers", "without namespaces"])
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NurseryConfig]:
    folder = tmp_path_factory.mktemp("nursery")
    for parent in (folder, *folder.parents):
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    folder.chmod(0o755)
    (folder / "root").mkdir()
    without = NAMESPACES if request.param == "without namespaces" else frozenset()
    found = NurseryConfig(isolation.probe(without), str(folder), (), 256, 16, 32)
    process, alive = nursery.start(found)
    yield found
    alive.close()
    process.wait()


@pytest.fixture
def box(config: NurseryConfig) -> Iterator[Box]:
    found = Box(config)
    yield found
    found.cell.close()


def test_a_kept_folder_is_there_for_the_next_step_and_empty_after_the_last(box: Box) -> None:
    box.prints("open('made', 'w').write('x')", keep=True)
    assert box.prints(LIST, keep=True) == "['made']\n"
    assert box.prints(LIST) == "['made']\n"
    assert box.prints(LIST) == "[]\n"


def test_discarding_empties_the_folder_and_the_cell_works_on(box: Box) -> None:
    for _ in range(3):
        box.prints("open('made', 'w').write('x')", keep=True)
        box.cell.discard()
        assert box.prints(LIST) == "[]\n"


@pytest.mark.parametrize(
    "text", ["open('made', 'w'); raise SystemExit(1)", "open('made', 'w')\nwhile True: pass"]
)
def test_a_step_that_failed_or_timed_out_is_cleaned_up_like_any_other(box: Box, text: str) -> None:
    assert box.run(text, keep=True, timeout=0.3).status != 0
    box.cell.discard()
    assert box.prints(LIST) == "[]\n"


def test_a_process_that_a_step_leaves_does_not_live_into_the_next(box: Box) -> None:
    daemon = "import os, time\nif os.fork() == 0:\n    while True: time.sleep(0.01); open('alive', 'w')"
    box.prints(daemon, keep=True)
    watch = "import os, time\nif os.path.exists('alive'): os.remove('alive')\ntime.sleep(0.2)\nprint(os.listdir('.'))"
    assert box.prints(watch) == "[]\n"


def test_nothing_of_a_kept_folder_outlives_a_worker_that_is_killed_between_two_steps(box: Box) -> None:
    before = set(Path(box.config.folder).glob("scratch*"))
    worker = os.fork()
    if worker == 0:
        child = Box(box.config)
        child.prints("open('made', 'w').write('x')", keep=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(worker, 0)
    assert box.prints(LIST) == "[]\n"
    assert eventually(lambda: not set(Path(box.config.folder).glob("scratch*")) - before, 10)


def test_files_are_placed_and_sent_back(box: Box) -> None:
    step = Step(files=(("a/b/in", 5, False), ("tool", 24, True), ("empty", 0, False)))
    contents = b"hello" + b"#!/bin/sh\nprintf ok > $1\n"[:24]
    program = (
        "import os, subprocess\nprint(open('a/b/in').read(), os.access('tool', os.X_OK), os.access('empty', os.X_OK))\n"
        "open('out', 'wb').write(bytes(range(256)))"
    )
    assert box.prints(program, step=step, contents=contents, keep=True) == "hello True False\n"
    assert box.send("out", "a/b/in", "empty", "none", "a", "../etc/passwd", "") == {
        "out": bytes(range(256)),
        "a/b/in": b"hello",
        "empty": b"",
    }
    assert box.prints("import os; print(os.path.exists('out'))") == "True\n"


def test_what_is_no_regular_file_of_the_program_is_not_sent(box: Box) -> None:
    box.prints(
        "import os\nos.symlink('/etc/passwd', 'secret'); os.symlink('own', 'link'); open('own', 'w').write('x')\n"
        "os.mkfifo('fifo'); os.mkdir('folder'); open('closed', 'w').write('x'); os.chmod('closed', 0)",
        keep=True,
    )
    assert box.send("secret", "link", "fifo", "folder", "closed", "own") in (
        {"own": b"x"},
        {"own": b"x", "closed": b"x"},  # where jobs run as root without its rights, it is theirs all the same
    )
    box.cell.discard()


def test_a_file_is_not_placed_through_a_link_or_over_another(box: Box) -> None:
    box.prints("import os; os.symlink('own', 'link'); open('own', 'w').write('x')", keep=True)
    for name in ("link", "own"):
        seen = box.run("print('run')", step=Step(files=((name, 1, False),)), contents=b"y", keep=True)
        assert seen.status != 0 and NOT_STARTED in seen.report
        assert box.stdout.text() == "" and name in box.stderr.text()
    assert box.prints("print(open('own').read())") == "x\n"


def test_files_larger_than_the_disk_are_refused(box: Box) -> None:
    seen = box.run("", step=Step(files=(("large", 17 << 20, False),)), contents=bytes(17 << 20))
    assert seen.status != 0 and "large" in box.stderr.text()
    assert box.prints(LIST) == "[]\n"


def test_another_program_runs_instead_of_the_interpreter(box: Box) -> None:
    step = Step(
        argv=("/bin/sh", "-c", 'echo "$NAME $1" $(ls)', "sh", "two words"), environment=(("NAME", "x"),)
    )
    box.run(step=step)
    assert box.stdout.text().strip() == "x two words", box.stderr.text()
    script = b"#!/bin/sh\necho script\n"
    box.run(step=Step(argv=("./own",), files=(("own", len(script), True),)), contents=script)
    assert box.stdout.text() == "script\n", box.stderr.text()


def test_a_program_that_is_not_there_was_never_started(box: Box) -> None:
    seen = box.run(step=Step(argv=("/nowhere/tool",)))
    assert os.waitstatus_to_exitcode(seen.status) == 127 and NOT_STARTED in seen.report
    assert "/nowhere/tool: No such file" in box.stderr.text()


@pytest.mark.parametrize("native", [False, True])
def test_a_step_can_have_less_memory_than_the_sandbox_allows(box: Box, native: bool) -> None:
    hog = (
        "import time\nkept = []\nfor n in range(60):\n    kept.append(bytearray(1 << 20)); time.sleep(0.003)\n"
        "print('all')"
    )
    argv = (sys.executable, "-S", "-c", hog) if native else None
    seen = box.run("" if native else hog, step=Step(argv=argv, less_mib=256 - 40), memory_mib=40)
    assert seen.over_memory or "MemoryError" in box.stderr.text(), box.stdout.text()
    assert box.prints(hog) == "all\n"


def compile_by(script: str, box: Box, **settings: object) -> dict[str, Any]:
    """The answer to a C++ job whose compiler is a shell script."""
    cell = Cell(box.config.socket_path(0), 0, memory_mib=64, spare_mib=SPARE_MIB)
    wish = Steps("cpp", 5.0, whole=True)
    job = Job("", "", "source", "in", "said in", 2.0, False, None, None, wish)
    stepper = Stepper(
        Settings(max_memory=64, max_compile_memory=64, **settings), Toolchain("/bin/sh", ("-c", script))
    )
    try:
        return stepper.run(job, cell)
    finally:
        cell.close()


def test_a_job_is_compiled_read_and_run(box: Box) -> None:
    script = "echo warning >&2; echo '#!/bin/sh\nread line; echo said $line; ls' > program; chmod +x program"
    answer = compile_by(script.replace("; ls", ""), box)
    assert answer["success"] and answer["stdout"] == "said in\n", answer
    assert answer["steps"]["compile"]["stderr"] == "warning\n"
    assert (
        compile_by(script, box)["stdout"] == "said in\nprogram\n"
    )  # of the compilation only the program is left


def test_a_compilation_that_takes_too_long_or_too_much_is_told_apart(box: Box) -> None:
    answer = compile_by("sleep 60", box, max_compile_time=0.3)
    assert (answer["reason"], answer["retryable"], answer["cost"]) == ("worker_timeout", False, 0)
    assert "Timed out: the compilation was stopped after 0.3 s" in answer["stderr"]
    hog = f"{sys.executable} -S -c 'x = bytearray(90 << 20)\nwhile True: pass'"
    answer = compile_by(hog, box)
    assert (answer["reason"], answer["run_success"], answer["retryable"]) == ("", False, False)
    assert "the compilation was stopped: it used more than 64 MiB" in answer["stderr"]
    answer = compile_by("echo solution.cpp:1: no; exit 3", box)
    assert answer["steps"]["compile"]["return_code"] == 3 and answer["steps"]["run"] is None


def test_a_compiler_that_makes_nothing_or_cannot_be_started_is_not_the_programs_fault(box: Box) -> None:
    with pytest.raises(SandboxLost, match="could not be read"):
        compile_by("true", box)
    box.cell.close()
    box.cell = Cell(box.config.socket_path(0), 0)
    stepper = Stepper(Settings(), Toolchain("/nowhere/g++", ()))
    job = Job("", "", "", "", None, 2.0, False, None, None, Steps("cpp", 5.0))
    with pytest.raises(SandboxLost, match="/nowhere/g.. could not be started"):
        stepper.run(job, box.cell)
    with pytest.raises(SandboxLost):
        box.run()


def test_data_that_is_cut_short_is_no_file() -> None:
    whole = (3).to_bytes(8, "little") + b"abc" + (-1).to_bytes(8, "little", signed=True)
    assert received(("a", "b"), whole) == {"a": b"abc"}
    for length in range(len(whole)):
        with pytest.raises(ValueError, match="ends"):
            received(("a", "b"), whole[:length])


def test_a_job_with_steps_survives_its_way_and_old_jobs_still_decode() -> None:
    steps = Steps("cpp", 3.0, 64, {"a": "eA=="}, ("b", "c"), whole=True)
    job = Job("1", "reply", "text", "", None, 2.0, False, None, 60.0, steps)
    assert Job.from_bytes(job.to_bytes()) == job
    assert job.longest > 5.0
    plain = Job("1", "reply", "text", "", None, 2.0, False, None, 60.0)
    old = plain.to_bytes().replace(b',"steps":null', b"")
    assert b"steps" not in old and Job.from_bytes(old) == plain and plain.longest == 2.0


def test_a_program_that_is_executed_ignores_no_signal_that_the_services_shell_ignored() -> None:
    shown = "import signal; print([int(n) for n in (1, 2, 3) if signal.getsignal(n) == signal.SIG_IGN])"
    starter = (
        "import signal, sys; from app.sandbox import step\n"
        "for number in (1, 2, 3): signal.signal(number, signal.SIG_IGN)\n"
        f"step._execute((sys.executable, '-c', {shown!r}), {{}})"
    )
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
