"""C++ programs: compiled and run behind the same walls as Python ones, and by the same contract."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cpp

Run = Callable[..., dict[str, Any]]
SUM = '#include <cstdio>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }\n'
# Minutes of work for a compiler, in few lines.
SLOW = """
constexpr long sum(long n) { for (long i = 0; i < 200000; ++i) n += i % 7; return n; }
template <long N> struct Chain { static constexpr long value = sum(Chain<N - 1>::value) + N; };
template <> struct Chain<0> { static constexpr long value = 0; };
int main() { return Chain<200>::value > 0; }
"""
TRY = """
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char **environ;
static void attempt(const char *what, long result) { if (result >= 0) printf("POSSIBLE: %s\\n", what); }
int main() {
    attempt("read /etc/passwd", open("/etc/passwd", O_RDONLY));
    attempt("read the zygote", open("/proc/1/mem", O_RDONLY));
    attempt("write /usr", open("/usr/code-judge-test", O_WRONLY | O_CREAT, 0600));
    attempt("write /", open("/code-judge-test", O_WRONLY | O_CREAT, 0600));
    attempt("internet socket", socket(AF_INET, SOCK_STREAM, 0) < 0 ? -1 : 0);
    attempt("netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
    if (getuid()) attempt("become root", setuid(0));
    attempt("new user namespace", unshare(CLONE_NEWUSER));
    attempt("mount", mount("x", "/tmp", "tmpfs", 0, ""));
    attempt("chroot", chroot("/"));
    attempt("trace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    attempt("device", mknod("d", S_IFCHR | 0600, 0x101));
    rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    attempt("raise memory", setrlimit(RLIMIT_DATA, &unlimited));
    attempt("raise processes", setrlimit(RLIMIT_NPROC, &unlimited));
    for (char **each = environ; *each; ++each) printf("environment: %s\\n", *each);
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2]{};
    syscall(SYS_capget, &header, sets);
    for (auto &set : sets) printf("capabilities %x %x\\n", set.effective, set.permitted);
    printf("no new privileges %d, seccomp %d\\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_SECCOMP));
    for (int each = 0; each < 256; ++each)
        if (fcntl(each, F_GETFD) >= 0) printf("descriptor %d\\n", each);
    DIR *here = opendir(".");
    while (dirent *entry = readdir(here))
        if (entry->d_name[0] != '.') printf("file %s\\n", entry->d_name);
    fclose(fopen("left", "w"));
}
"""
WALLS = (
    "capabilities 0 0\ncapabilities 0 0\nno new privileges 1, seccomp 2\n"
    "descriptor 0\ndescriptor 1\ndescriptor 2\nfile program\n"
)


def needs_compiler(judge: Any) -> None:
    if judge.get("/status")["cpp"] == "no":
        pytest.skip("no C++ compiler on this machine (g++ or clang++ in PATH)")


@pytest.fixture
def run_cpp(judge: Any) -> Run:
    needs_compiler(judge)
    return lambda source, **fields: judge.post("/run", {"type": "cpp", "solution": source, **fields})


def test_status_names_the_compiler(judge: Any, run_cpp: Run) -> None:
    assert any(name in judge.get("/status")["cpp"] for name in ("g++", "clang"))


@pytest.mark.parametrize(("expected", "success"), [("42", True), ("41", False), (None, True)])
def test_a_program_reads_stdin_and_its_stdout_is_compared(
    run_cpp: Run, expected: str | None, success: bool
) -> None:
    result = run_cpp(SUM, input="40 2", expected_output=expected)
    assert (result["run_success"], result["success"], result["stdout"]) == (True, success, "42\n")
    assert (result["stderr"], result["reason"], result["exception"]) == ("", "", None)
    assert 0 < result["cost"] < 2


def test_the_whole_standard_library_in_one_header_compiles(run_cpp: Run) -> None:
    source = (
        "#include <bits/stdc++.h>\nusing namespace std;\n"
        'int main() { map<string, vector<int>> m; m["x"] = {1, 2}; cout << m["x"].size() << endl; }'
    )
    assert run_cpp(source, expected_output="2")["success"]


def test_a_compile_error_names_file_and_line_and_is_the_programs_own_fault(run_cpp: Run) -> None:
    result = run_cpp("int main() {\n    return undeclared;\n}\n", expected_output="1")
    assert "solution.cpp:2:12: error:" in result["stderr"] and "undeclared" in result["stderr"]
    assert (result["success"], result["run_success"], result["stdout"], result["cost"]) == (
        False,
        False,
        "",
        0,
    )
    assert (result["reason"], result["retryable"]) == ("", False)


def test_exit_status_and_signals_fail_and_signals_are_named(run_cpp: Run) -> None:
    result = run_cpp('#include <iostream>\nint main() { std::cout << "printed"; return 3; }')
    assert (result["run_success"], result["stdout"], result["reason"]) == (False, "printed", "")
    result = run_cpp("int main() { volatile int *p = nullptr; return *p; }")
    assert not result["run_success"] and "signal 11 (SIGSEGV)" in result["stderr"]
    result = run_cpp("#include <vector>\nint main() { std::vector<int>(2).at(2); }")
    assert "out_of_range" in result["stderr"] and "SIGABRT" in result["stderr"]


def test_a_program_without_end_is_stopped_and_what_it_flushed_is_there(run_cpp: Run) -> None:
    source = '#include <iostream>\nint main() { std::cout << "before" << std::endl; for (;;) {} }'
    started = time.monotonic()
    result = run_cpp(source, options={"timeout": "0.4"})
    assert (result["reason"], result["stdout"], result["retryable"]) == ("worker_timeout", "before\n", False)
    assert "stopped after 0.4 s" in result["stderr"] and result["cost"] < 0.7
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    "body",
    [
        "for (;;) memset(malloc(1 << 20), 1, 1 << 20);",
        "for (int n = 0; n < 4; ++n) if (!fork()) { memset(malloc(90 << 20), 1, 90 << 20); pause(); } pause();",
    ],
)
def test_memory_is_counted_over_the_whole_tree(run_cpp: Run, body: str) -> None:
    result = run_cpp(f"#include <cstdlib>\n#include <cstring>\n#include <unistd.h>\nint main() {{ {body} }}")
    assert result["exception"] == "MemoryError" and "256 MiB" in result["stderr"], result


def test_more_memory_than_there_may_be_is_bad_alloc(run_cpp: Run) -> None:
    source = (
        "#include <iostream>\n#include <new>\nusing namespace std;\n"
        'int main() { try { char *volatile all = new char[8L << 30]; } catch (bad_alloc &) { cout << "caught"; } }'
    )
    assert run_cpp(source, expected_output="caught")["success"]


def test_threads_and_deep_recursion_work(run_cpp: Run) -> None:
    source = """
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>
long depth(long n) { volatile char frame[64]; frame[0] = n; return n ? 1 + depth(n - 1) + frame[0] * 0 : 0; }
int main() {
    std::atomic<long> sum{0};
    std::vector<std::thread> threads;
    for (int n = 0; n < 16; ++n) threads.emplace_back([&] { sum += depth(1000); });
    for (auto &thread : threads) thread.join();
    printf("%ld %ld\\n", sum.load(), depth(300000));
}"""
    assert run_cpp(source, options={"timeout": "2"}, expected_output="16000 300000")["success"]


def test_the_walls_stand_after_the_exec(judge: Any, run_cpp: Run) -> None:
    if not judge.get("/status")["isolation"]["mount"]:
        pytest.skip("no mount namespaces here: other files are visible, and unreadable")
    for _ in range(2):  # the second time it would find what the first has left
        result = run_cpp(TRY)
        assert result["run_success"] and result["stdout"] == WALLS, result
    assert not os.path.exists("/usr/code-judge-test")
    assert judge.prints("import os; print(os.listdir('.'))") == "[]\n"


def test_a_compiled_program_has_the_dispositions_of_a_fresh_process(run_cpp: Run) -> None:
    source = """
#include <csignal>
#include <cstdio>
int main() {
    for (int n = 1; n < 32; ++n) {
        struct sigaction now;
        if (!sigaction(n, nullptr, &now) && now.sa_handler != SIG_DFL) printf("%d ", n);
    }
}"""
    assert run_cpp(source)["stdout"] == ""


def test_a_daemon_and_a_fork_bomb_end_with_their_job(judge: Any, run_cpp: Run) -> None:
    run_cpp("#include <unistd.h>\nint main() { if (!fork()) { setsid(); if (!fork()) sleep(60); } }")
    bomb = "#include <unistd.h>\nint main() { for (;;) fork(); }"
    assert run_cpp(bomb, options={"timeout": "0.5"})["reason"] == "worker_timeout"
    assert not [line for line in judge.processes().values() if line.endswith("program")]
    assert judge.prints("print(1)") == "1\n"


HOSTILE_SOURCES = {
    "a secret file": '#include "/etc/passwd"\n',
    "a secret file by the assembler": 'asm(".incbin \\"/etc/passwd\\"");\nint main() {}\n',
    "the environment of the compiler": '#include "/proc/self/environ"\n',
    "the service's memory": '#include "/proc/1/environ"\n',
    "an endless file": '#include "/dev/zero"\n',
    "itself": "#include __FILE__\n",
    "a template bomb": "template <int N> struct A { A<N + 1> a; };\nA<0> a;\nint main() {}\n",
    "a huge program": "int a[1 << 30] = {1};\nint main() {}\n",
}


def test_a_hostile_source_meets_the_same_walls_and_limits(judge: Any, run_cpp: Run) -> None:
    items = [{"type": "cpp", "solution": source} for source in HOSTILE_SOURCES.values()]
    results = judge.post("/run/batch", {"submissions": items})["results"]
    for name, result in zip(HOSTILE_SOURCES, results, strict=True):
        assert not result["run_success"] and result["stderr"], (name, result)
        assert result["reason"] in ("", "worker_timeout") and not result["retryable"], (name, result)
        told = result["stdout"] + result["stderr"]
        assert not any(secret in told for secret in ("root:x", "REDIS", "PYTHON", "HOME=")), (name, told)
    assert judge.prints("import os; print(os.listdir('.'))") == "[]\n"
    assert run_cpp(SUM, input="1 2", expected_output="3")["success"]


def test_a_lone_surrogate_is_invalid_input_here_too(run_cpp: Run) -> None:
    assert run_cpp("// \ud800\nint main() {}")["reason"] == "invalid_input"


def test_the_tests_of_one_source_compile_once_a_worker(judge: Any, run_cpp: Run) -> None:
    source = f"// {os.urandom(8).hex()}\n#include <iostream>\nint main() {{ int n; std::cin >> n; std::cout << n; }}"
    items = [
        {"type": "cpp", "solution": source, "input": str(n), "expected_output": str(n)} for n in range(60)
    ]
    first = judge.post("/run_code", {"language": "cpp", "code": source, "stdin": "7"})
    seconds = first["compile_result"]["execution_time"]
    started = time.monotonic()
    results = judge.post("/run/batch", {"submissions": items})["results"]
    assert all(result["success"] for result in results)
    assert (
        time.monotonic() - started < 20 * seconds + 5
    )  # 60 compilations would take 30 times as long on 2 cores
    told = {
        judge.post("/run_code", {"language": "cpp", "code": source})["compile_result"]["execution_time"]
        for _ in range(8)
    }
    assert len(told) <= 2  # one a worker


def test_the_memory_of_programs_is_bounded_and_forgets_the_longest_unused() -> None:
    memory = cpp.Memory(10_000)
    made = {n: cpp.Compiled(bytes(2000), "", "", 0, 1.0) for n in range(4)}
    for n in range(3):
        memory.put(b"%d" % n, made[n])
    assert memory.get(b"0") is made[0]
    memory.put(b"3", made[3])
    assert memory.size <= memory.limit
    assert memory.get(b"0") and memory.get(b"3") and memory.get(b"1") is None
    memory.put(b"stopped", cpp.Compiled(None, "", "", None, 9.0))
    memory.put(b"large", cpp.Compiled(bytes(20_000), "", "", 0, 1.0))
    assert memory.get(b"stopped") is None and memory.get(b"large") is None


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not below /tmp: the jobs' own scratch folder hides that."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


def test_a_compiler_in_another_folder_is_visible_with_its_headers(start_judge: Any, folder: Path) -> None:
    found = cpp.find(cpp.Settings())
    if found is None:
        pytest.skip("no C++ compiler on this machine (g++ or clang++ in PATH)")
    for name in ("bin", "include", "lib/gcc"):
        (folder / "tool" / name).mkdir(parents=True)
    wrapper = folder / "tool" / "bin" / "g++"
    wrapper.write_text(f'#!/bin/sh\nexec {found.path} -I"$(dirname "$0")/../include" "$@"\n')
    wrapper.chmod(0o755)
    (folder / "tool" / "include" / "ours.h").write_text("const int ours = 6;\n")
    (folder / "secret.h").write_text("const int secret = 1;\n")
    judge = start_judge("--workers", "1", CPP_COMPILER_PATH=str(wrapper), CPP_FLAGS="-O0 -DSEVEN=7")
    if not judge.get("/status")["isolation"]["mount"]:
        pytest.skip("no mount namespaces here: the folder of this test is closed to the jobs' user")
    source = '#include <cstdio>\n#include <ours.h>\nint main() { printf("%d", ours * SEVEN); }'
    result = judge.post("/run", {"type": "cpp", "solution": source, "expected_output": "42"})
    assert result["success"], result
    spy = f'#include "{folder}/secret.h"\nint main() {{}}'
    assert "No such file" in judge.post("/run", {"type": "cpp", "solution": spy})["stderr"]


def test_without_namespaces_the_walls_stand_too(start_judge: Any) -> None:
    judge = start_judge("--workers", "1", CODE_JUDGE_WITHOUT="user,mount,pid,net,ipc")
    needs_compiler(judge)
    result = judge.post("/run", {"type": "cpp", "solution": TRY})
    assert result["run_success"] and result["stdout"] == WALLS, result
    assert judge.prints("import os; print(os.listdir('.'))") == "[]\n"
