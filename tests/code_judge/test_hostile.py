"""Attacks on this very implementation, from inside a program: on its zygote, its worker, its neighbours, its answer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from judge_service import SHOWN, eventually

TRY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action):
    try:
        return 'DONE' if action() is None else 'DONE'
    except BaseException as error:
        return type(error).__name__
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
"""

# System calls of x86_64 that a program has no use for, each with arguments that would succeed where it is allowed.
CALLS = {
    "ptrace(TRACEME)": "call(101, 0, 0, 0, 0)",
    "process_vm_readv": "call(310, os.getppid(), 0, 0, 0, 0, 0)",
    "process_vm_writev": "call(311, os.getppid(), 0, 0, 0, 0, 0)",
    "pidfd_getfd": "call(438, os.pidfd_open(os.getpid()), 0, 0)",
    "kcmp": "call(312, os.getpid(), os.getpid(), 2, 0, 0)",
    "unshare(NEWUSER)": "call(272, 0x10000000)",
    "setns": "call(308, 0, 0)",
    "clone(NEWUSER)": "call(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "umount2": "call(166, b'/tmp', 2)",
    "pivot_root": "call(155, b'/tmp', b'/tmp')",
    "chroot": "call(161, b'/tmp')",
    "open_tree": "call(428, -100, b'/tmp', 1)",
    "fsopen": "call(430, b'tmpfs', 0)",
    "name_to_handle_at": "call(303, -100, b'/tmp', 0, 0, 0)",
    "open_by_handle_at": "call(304, -100, 0, 0)",
    "bpf": "call(321, 0, 0, 0)",
    "perf_event_open": "call(298, 0, 0, -1, -1, 0)",
    "userfaultfd": "call(323, 1)",
    "io_uring_setup": "call(425, 8, b'\\0' * 120)",
    "add_key": "call(248, b'user', b'k', b'v', 1, -3)",
    "keyctl": "call(250, 0, -3, 1)",
    "memfd_create": "call(319, b'm', 0)",
    "shmget": "call(29, 0, 4096, 0o1600)",
    "msgget": "call(68, 0, 0o1600)",
    "semget": "call(64, 0, 1, 0o1600)",
    "prlimit of process 1": "call(302, 1, 7, 0, ctypes.create_string_buffer(16))",
    "sched_setaffinity of process 1": "call(203, 1, 8, b'\\1' + bytes(7))",
    "setpriority of the user": "call(141, 2, 0, 5)",
    "setdomainname": "call(171, b'x', 1)",
    "settimeofday": "call(164, ctypes.create_string_buffer(16), 0)",
    "kexec_load": "call(246, 0, 0, 0, 0)",
    "init_module": "call(175, 0, 0, b'')",
    "personality": "call(135, 0x0040000)",
    "syslog": "call(103, 10, 0, 0)",
    "x32 getpid": "call(0x40000000 + 39)",
    "seccomp user notification": "call(317, 1, 8, b'\\0' * 16)",
    "setuid(0)": "call(105, 0)",
    "setresuid(0, 0, 0)": "call(117, 0, 0, 0)",
    "capset all": "call(126, (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[0xffffffff] * 6))",
    "keep capabilities, then raise one": "libc.prctl(47, 2, 21, 0, 0)",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are those of x86_64")
def test_no_system_call_opens_a_door(judge: Any) -> None:
    body = "".join(f"print({name!r}, {text}, sep='|')\n" for name, text in CALLS.items())
    answers = dict(line.rsplit("|", 1) for line in judge.prints(TRY + body).splitlines())
    assert answers == dict.fromkeys(CALLS, "-1")


@pytest.mark.parametrize(
    "family", [1, 2, 10, 16, 17, 38, 40, 44]
)  # Unix, IPv4, IPv6, netlink, packet, ALG, vsock, XDP
def test_no_socket_reaches_anything(judge: Any, family: int) -> None:
    program = TRY + (
        "import socket\n"
        f"try:\n    s = socket.socket({family}, socket.SOCK_STREAM if {family} != 16 else socket.SOCK_RAW)\n"
        "    s.settimeout(0.3)\n"
        "    for address in ('/tmp/x', '\\0code-judge', ('127.0.0.1', 6379), (2, 1)):\n"
        "        print(attempt(lambda: s.connect(address)))\n"
        "except OSError as error:\n    print('refused')\n"
    )
    assert "DONE" not in judge.prints(program)


def test_the_sockets_of_the_service_cannot_be_found(judge: Any) -> None:
    program = (
        "import os, socket\nfound = []\n"
        "for root, folders, names in os.walk('/'):\n"
        "    folders[:] = [f for f in folders if f not in ('proc', 'usr', 'lib', 'lib64', 'bin', 'site-packages')]\n"
        "    found += [n for n in names if 'sock' in n or n.startswith('layer')][:5]\n"
        "    if len(root) > 60: folders.clear()\nprint([n for n in found if n in ('valkey.sock', 'layer0')])"
    )
    assert judge.prints(program) == "[]\n"


def test_the_inherited_descriptors_lead_nowhere(judge: Any) -> None:
    program = TRY + (
        "import socket, stat\nkinds = []\n"
        "for fd in range(3, 256):\n"
        "    try: mode = os.fstat(fd).st_mode\n"
        "    except OSError: continue\n"
        "    kinds.append('pipe' if stat.S_ISFIFO(mode) else oct(mode))\n"
        "print(kinds)"
    )
    assert (
        judge.prints(program) == "['pipe']\n"
    )  # of hints for the wording of the answer, which nothing else believes


@pytest.mark.parametrize(
    "attack",
    [
        "os.kill(1, 9); os.kill(1, 15); os.kill(1, 19)",
        "os.kill(-1, 9)",
        "os.killpg(0, 9)",
        "open('/proc/1/mem', 'r+b').write(b'x')",
        "open('/proc/1/oom_score_adj', 'w').write('1000')",
        "open(f'/proc/{os.getppid()}/environ').read() and 1 / 0",
        "os.pidfd_open(1); import signal; signal.pidfd_send_signal(os.pidfd_open(1), 9)",
        "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))",
        "[os.close(fd) for fd in range(256)]",
        "os.closerange(0, 256); os._exit(0)",
        "import fcntl; [fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK) for fd in (1, 2, 60)]",
        "[os.write(fd, b'\\0' * 4096) for fd in (60,) for _ in range(100)]",
        "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN); signal.alarm(0)",
        "sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'control' in o: print('FOUND', o)",
        "import sys; print('FOUND') if any(m == 'app' or m.startswith('app.') for m in sys.modules) else None",
    ],
)
def test_an_attack_on_the_zygote_hurts_only_the_attacker(judge: Any, attack: str) -> None:
    result = judge.run(TRY + attack)
    assert "FOUND" not in result["stdout"]
    assert result["retryable"] is False, result  # or a program could have itself run again and again
    assert judge.prints("print('alive')") == "alive\n"


def test_a_program_cannot_forge_the_end_of_another(judge: Any) -> None:
    program = (
        "import os, socket, struct\n"
        "for fd in range(3, 256):\n"
        "    for data in (struct.pack('=Qi?', 0, 0, False), struct.pack('=Qi?', 10 ** 6, 0, False), b'{}'):\n"
        "        try: socket.socket(fileno=os.dup(fd)).send(data)\n"
        "        except OSError: pass\n"
        "raise SystemExit(3)"
    )
    result = judge.run(program)
    assert (result["run_success"], result["retryable"]) == (False, False)
    assert [judge.run(f"print({n})")["stdout"] for n in range(5)] == [f"{n}\n" for n in range(5)]


def test_a_fork_bomb_that_flees_from_the_kill_is_caught(judge: Any) -> None:
    program = (
        "import os, signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True:\n    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass"
    )
    started = time.monotonic()
    results = judge.post(
        "/run/batch", {"submissions": [{"solution": program, "options": {"timeout": "0.5"}}] * 4}
    )
    assert time.monotonic() - started < 8
    assert all(not result["run_success"] and not result["retryable"] for result in results["results"])
    assert judge.prints("print(1)") == "1\n"
    assert judge.prints("import os; print(len([p for p in os.listdir('/proc') if p.isdigit()]))") in (
        "2\n",
        "3\n",
    )


@pytest.mark.parametrize(
    "litter",
    [
        "path = '.'\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')",
        "for n in range(20000):\n    try: open(f'{n}\\n\\t\\udcff', 'w').close()\n    except OSError: break",
        "os.mkdir('a'); os.symlink('/', 'a/l'); os.symlink('/usr', '/dev/shm/l'); os.chmod('a', 0)",
        "f = open('sparse', 'wb'); f.seek(60 << 20); f.write(b'x'); f.flush(); os.link('sparse', 'hard')",
        "os.mkfifo('p'); os.mknod('s', 0o140600) if hasattr(os, 'mknod') else None",
        "os.mkdir('cwd'); os.chdir('cwd'); os.rmdir('../cwd')",
        "f = open('/dev/shm/x', 'wb')\n"
        "for _ in range(100):\n    try: f.write(bytes(1 << 20))\n    except OSError: break",
        "import fcntl; f = open('flags', 'w')\ntry: fcntl.ioctl(f, 0x40086602, (16).to_bytes(8, 'little'))\n"
        "except OSError: pass",
    ],
)
def test_whatever_is_left_in_the_folders_is_gone_afterwards(judge: Any, litter: str) -> None:
    submissions = [{"solution": "import os\n" + litter}, {"solution": "import os\n" + litter}]
    first = judge.post("/run/batch", {"submissions": submissions})["results"]
    assert all(result["retryable"] is False for result in first), first
    for _ in range(4):
        look = f"import os; print({{*os.listdir('/tmp'), *os.listdir('/dev/shm')}} == {SHOWN!r})"
        assert judge.prints(look) == "True\n"


def test_a_gigabyte_of_output_on_both_streams_costs_no_memory(judge: Any) -> None:
    def resident() -> int:
        sizes = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in judge.worker_pids()]
        return max(int(size) for size in sizes) * os.sysconf("SC_PAGESIZE")

    judge.prints("print(1)")
    before = resident()
    flood = "import os\nb = b'x' * 65536\nfor _ in range(8192): os.write(1, b); os.write(2, b)"
    result = judge.run(flood)  # ends with the time limit of 2 s if it does not get that far
    assert len(result["stdout"]) <= 1000 and len(result["stderr"]) <= 1000
    assert resident() - before < 10 << 20


def test_a_huge_environment_or_argument_list_is_the_programs_own_trouble(judge: Any) -> None:
    program = (
        "import os, sys\nos.environ['X'] = 'x' * (1 << 17)\n"
        "try: os.execv(sys.executable, ['python'] + ['y' * 100000] * 300)\n"
        "except OSError as error: print(type(error).__name__)"
    )
    assert judge.prints(program) in ("OSError\n", "PermissionError\n", "FileNotFoundError\n")


def test_set_uid_programs_give_nothing(judge: Any) -> None:
    program = (
        "import os, subprocess\nfor path in ('/usr/bin/su', '/usr/bin/mount', '/usr/bin/passwd', '/bin/ping'):\n"
        "    if os.path.exists(path):\n"
        "        try: print(subprocess.run([path, '-c', 'id'], capture_output=True, timeout=1).returncode == 0)\n"
        "        except Exception: print(False)\n"
        "print(os.getuid() == 0)"
    )
    assert "True" not in judge.prints(program)


def test_two_jobs_at_a_time_cannot_see_or_signal_each_other(judge: Any) -> None:
    hide = "import time, os; secret = 'n3ighbour'; open('shared', 'w').write(secret); time.sleep(1)"
    spy = (
        "import os, time\ntime.sleep(0.3)\nseen = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "for p in range(1, 200):\n    if p != os.getpid():\n        try: os.kill(p, 9)\n        except OSError: pass\n"
        "print(len(seen) <= 2, os.path.exists('shared'), os.listdir('/dev/shm'))"
    )
    results = judge.post("/run/batch", {"submissions": [{"solution": hide}, {"solution": spy}]})["results"]
    assert results[0]["run_success"]
    assert results[1]["stdout"] == "True False []\n"


def test_the_time_limit_is_of_the_whole_tree_and_kept_to_a_tenth_of_a_second(judge: Any) -> None:
    program = "import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n        while True: pass\ntime.sleep(60)"
    result = judge.run(program, options={"timeout": "0.5"})
    assert result["reason"] == "worker_timeout" and result["cost"] < 0.5 + 0.3
    assert eventually(lambda: judge.prints("print(1)") == "1\n", 2)
