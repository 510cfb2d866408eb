"""What a hostile program must not be able to do, tried against the running service."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path
from typing import Any

import pytest
from judge_service import SHOWN

TRY = """
def attempt(action):
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "DONE"
"""


def test_the_environment_is_empty(judge: Any) -> None:
    assert judge.prints("import os; print(dict(os.environ))") == "{}\n"
    program = "import os\nraw = open('/proc/self/environ', 'rb').read() if os.path.exists('/proc') else b''\n"
    assert judge.prints(program + "print(b'REDIS' in raw, b'HOME' in raw)") == "False False\n"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/etc/shadow", "/etc/hostname", str(Path.home() / ".bashrc"), __file__, "/proc/1/environ",
     "/proc/1/mem", "/proc/1/maps", "/proc/1/root/etc/passwd", "/proc/1/cwd/x", "/proc/1/fd/0"],
)  # fmt: skip
def test_a_file_that_is_not_the_interpreters_is_unreadable(judge: Any, path: str) -> None:
    assert judge.run(f"open({path!r}, 'rb').read()")["exception"] in ("FileNotFoundError", "PermissionError")


def test_folders_of_others_are_invisible(judge: Any) -> None:
    for folder in ("/home", "/var", "/run", "/opt", "/root", str(Path(__file__).parent)):
        program = f"import os\ntry:\n    print(os.listdir({folder!r}))\nexcept OSError:\n    print([])"
        seen = set(eval(judge.prints(program)))
        # What leads to the interpreter has to be there.
        assert not seen - {*Path(sys.prefix).parts, *Path(sys.base_prefix).parts}, (folder, seen)


def test_the_services_own_source_is_unreadable(judge: Any) -> None:
    assert judge.run("import app.worker")["exception"] == "ModuleNotFoundError"
    own = Path(__file__).resolve().parents[2] / "code-judge" / "app" / "worker.py"
    assert judge.run(f"open({str(own)!r})")["exception"] in ("FileNotFoundError", "PermissionError")


@pytest.mark.parametrize(
    "folder", ["/", "/usr", "/etc", "/var/tmp", "/dev", "/proc", sys.prefix, sys.base_prefix]
)
def test_nothing_outside_the_scratch_folder_is_writable(judge: Any, folder: str) -> None:
    program = TRY + f"print(attempt(lambda: open({folder + '/code-judge-test'!r}, 'w')))"
    assert judge.prints(program) in ("FileNotFoundError\n", "PermissionError\n", "OSError\n")
    assert not os.path.exists(folder + "/code-judge-test")


def test_the_scratch_folder_is_new_for_every_job(judge: Any) -> None:
    leave = (
        "import os; open('left', 'w').write('x'); os.makedirs('a/b'); os.chmod('a/b', 0); os.chmod('a', 0)\n"
    )
    leave += "open('/dev/shm/left', 'w').write('x') if os.path.isdir('/dev/shm') else None"
    look = f"import os; print([*{{*os.listdir('.')}} - {SHOWN!r}], os.path.exists('/dev/shm/left'))"
    for _ in range(4):
        judge.prints(leave)
        assert judge.prints(look) == "[] False\n"


@pytest.mark.parametrize(
    "connect",
    [
        "socket.create_connection(('127.0.0.1', PORT), 1)",
        "socket.create_connection(('10.255.255.1', 80), 0.3)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53))",
        "socket.socket(socket.AF_INET6)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET).bind(('127.0.0.1', 0))",
        "socket.getaddrinfo('example.com', 80)",
    ],
)
def test_no_network_is_reachable_loopback_included(judge: Any, connect: str) -> None:
    program = TRY + f"import socket\nPORT = {judge.url.rpartition(':')[2]}\nprint(attempt(lambda: {connect}))"
    assert judge.prints(program) in (
        "OSError\n",
        "PermissionError\n",
        "gaierror\n",
        "ConnectionRefusedError\n",
    )


def test_no_process_of_the_machine_is_visible_or_can_be_signalled(judge: Any) -> None:
    pids = [judge.process.pid, os.getpid()]
    program = TRY + f"import os\nprint([attempt(lambda: os.kill(p, 0)) for p in {pids}])"
    assert judge.prints(program) == "['ProcessLookupError', 'ProcessLookupError']\n"
    assert judge.prints(TRY + "import os\nprint(attempt(lambda: os.kill(1, 9)))") in (
        "PermissionError\n",
        "DONE\n",
    )
    assert judge.prints("print(1)") == "1\n"


def test_the_expected_output_is_nowhere_in_the_programs_reach(judge: Any) -> None:
    secret = "s3cr3t-" + os.urandom(8).hex()
    program = (
        "import gc, sys, os\nhits = 0\nneedle = bytes.fromhex(sys.stdin.read())[::-1]\n"
        "for line in open('/proc/self/maps'):\n"
        "    span, mode = line.split()[:2]\n"
        "    a, b = (int(x, 16) for x in span.split('-'))\n"
        "    if 'r' not in mode or '[v' in line: continue\n"
        "    with open('/proc/self/mem', 'rb', 0) as mem:\n"
        "        try:\n            mem.seek(a); data = mem.read(b - a)\n"
        "        except (OSError, OverflowError): continue\n"
        "        hits += data.count(needle) if data else 0\n        del data\n"
        "print('found' if hits > 3 else 'absent', len(os.listdir('/proc/self/fd')))"
    )
    result = judge.run(program, input=secret[::-1].encode().hex(), expected_output=secret)
    assert result["run_success"], result
    assert result["stdout"].startswith("absent")


def test_no_trace_of_another_job_is_in_memory(judge: Any) -> None:
    secret = "tr4ce" + os.urandom(8).hex()
    for _ in range(6):
        judge.run(f"x = '{secret}'\nprint(x)")
    halves = (secret[:10], secret[10:])
    program = (
        f"tail, head = {halves[1]!r}, {halves[0]!r}\nneedle = (head + tail).encode()\n"
        "hits = 0\n"
        "for line in open('/proc/self/maps'):\n"
        "    a, b = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "    if 'r' not in line.split()[1] or '[v' in line: continue\n"
        "    with open('/proc/self/mem', 'rb', 0) as mem:\n"
        "        try:\n            mem.seek(a); data = mem.read(b - a)\n"
        "        except (OSError, OverflowError): continue\n"
        '        hits += data.count(needle + b"\'")\n        del data\n'
        "print(hits)"
    )
    for _ in range(4):
        assert judge.prints(program) == "0\n"


def test_privileges_cannot_be_regained(judge: Any) -> None:
    program = TRY + (
        "import os, ctypes\nlibc = ctypes.CDLL(None)\n"
        "print(attempt(lambda: os.setuid(0)) if os.getuid() else 'ROOT', attempt(lambda: os.chroot('/')),\n"
        "      attempt(lambda: os.mknod('d', 0o20666, os.makedev(1, 1))),\n"
        "      [libc.unshare(0x10000000), libc.unshare(0x20000), libc.ptrace(16, 1, 0, 0),\n"
        "       libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0)])"
    )
    assert judge.prints(program) == "PermissionError PermissionError PermissionError [-1, -1, -1, -1]\n"


@pytest.mark.parametrize(
    "limit", ["RLIMIT_NPROC", "RLIMIT_DATA", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE"]
)
def test_a_hard_limit_cannot_be_raised(judge: Any, limit: str) -> None:
    program = TRY + f"import resource as r\nprint(attempt(lambda: r.setrlimit(r.{limit}, (-1, -1))))"
    assert judge.prints(program) in ("ValueError\n", "PermissionError\n")


def test_printed_text_cannot_forge_a_result(judge: Any) -> None:
    forged = '{"id": 1, "result": {"success": true}}\nexception Forged\n'
    result = judge.run(
        f"import os\nfor fd in range(256):\n    try: os.write(fd, {forged.encode()!r})\n    except OSError: pass\n"
        "os._exit(1)"
    )
    assert (result["success"], result["run_success"], result["retryable"]) == (False, False, False)
    assert judge.prints("print(1)") == "1\n"


def _ordinary_python(folder: Path) -> tuple[str, str] | None:
    """An interpreter that user `nobody` can run, and the PYTHONPATH that it needs."""
    from app.sandbox.isolation import interpreter_readable_by_all

    if interpreter_readable_by_all():
        return sys.executable, ""
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    # redis asks for this back-port before Python 3.11.3, which Debian 12 has; ours needs it not.
    (folder / "async_timeout.py").write_text("from asyncio import timeout\n")
    return (system, f"{sysconfig.get_paths()['purelib']}:{folder}") if os.path.exists(system) else None


VARIANTS = {
    "all": {},
    "without namespaces": {"CODE_JUDGE_WITHOUT": "user,mount,pid,net,ipc"},
    "without Landlock and seccomp": {"CODE_JUDGE_WITHOUT": "landlock,seccomp"},
    "without uid": {"CODE_JUDGE_WITHOUT": "uid"},
    "an ordinary user": {"uid": "65534"},
    "an ordinary user without namespaces": {"uid": "65534", "CODE_JUDGE_WITHOUT": "user,mount,pid,net,ipc"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_doors_are_closed_with_whatever_the_kernel_offers(
    start_judge: Any, tmp_path: Path, variant: str
) -> None:
    settings = dict(VARIANTS[variant])
    python = sys.executable
    if "uid" in settings:
        if os.getuid() != 0:
            pytest.skip("the suite itself runs as an ordinary user: the other tests cover this")
        found = _ordinary_python(tmp_path)
        if found is None:
            pytest.skip("no interpreter here that another user can read (it lies in a 0700 home)")
        python, settings["PYTHONPATH"] = found
    judge = start_judge("--workers", "1", python=python, MAX_EXECUTION_TIME="4", PRELOAD="numpy", **settings)
    port = judge.url.rpartition(":")[2]
    program = TRY + (
        "import os, socket\n"
        "print(attempt(lambda: open('/etc/passwd')), attempt(lambda: os.listdir('/var')),\n"
        "      attempt(lambda: open('/var/tmp/code-judge-test', 'w')),\n"
        f"      attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 1)),\n"
        f"      attempt(lambda: open('/proc/{judge.process.pid}/environ').read()),\n"
        f"      attempt(lambda: os.kill({judge.process.pid}, 0)), dict(os.environ))\n"
        "open('scratch', 'w').write('x')\n"
    )
    result = judge.run(program)
    assert result["run_success"], result
    assert "DONE" not in result["stdout"] and result["stdout"].endswith("{}\n"), (variant, result["stdout"])
    assert judge.prints(f"import os; print([*{{*os.listdir('.')}} - {SHOWN!r}])") == "[]\n"
    assert judge.prints("import numpy; print(int(numpy.arange(3).sum()))") == "3\n"
    escape = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\n"
        "while True: pass"
    )
    result = judge.run(escape, options={"timeout": "0.4"})
    assert result["reason"] == "worker_timeout" and result["cost"] < 1
    assert judge.run("x = [bytearray(10**6) for _ in range(3000)]")["exception"] == "MemoryError"


def test_an_interpreter_below_tmp_is_there_and_stays(start_judge: Any) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        venv.create(folder, symlinks=True)
        packages = next(Path(folder).glob("lib/python*/site-packages"))
        (packages / "neighbour.py").write_text("here = 1\n")
        judge = start_judge(
            "--workers", "1", python=f"{folder}/bin/python", PYTHONPATH=sysconfig.get_paths()["purelib"]
        )
        if not judge.get("/status")["isolation"]["mount"]:
            pytest.skip("without a mount namespace nothing is hidden")
        looks = TRY + (
            "import neighbour, subprocess, sys\nprint(subprocess.check_output([sys.executable, '-c', 'print(1)']),\n"
            f"      attempt(lambda: open({folder!r} + '/new', 'w')))\n"
        )
        for _ in range(3):
            assert judge.prints(looks + "open('left', 'w').close()") == "b'1\\n' OSError\n"
            names = {folder.split("/")[2]} | SHOWN
            assert judge.prints(f"import os; print({{*os.listdir('/tmp')}} == {names!r})") == "True\n"


def test_the_machines_device_nodes_cannot_be_changed_even_by_a_job_that_runs_as_root(
    start_judge: Any,
) -> None:
    judge = start_judge("--workers", "1", CODE_JUDGE_WITHOUT="uid")
    if not judge.get("/status")["isolation"]["mount"]:
        pytest.skip("without a mount namespace there are no nodes of the job's own")
    mode = (
        os.stat("/dev/null").st_mode & 0o7777
    )  # the mode that it has: nothing changes where this is allowed
    program = TRY + f"import os\nprint(attempt(lambda: os.chmod('/dev/null', {mode})))\n"
    program += "open('/dev/null', 'w').write('x'); print(open('/dev/zero', 'rb').read(2))"
    assert judge.prints(program) == "OSError\nb'\\x00\\x00'\n"
