"""POST /run_code: SandboxFusion's form, as its clients know it; verl's own reward code is one of them here."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from judge_service import Judge, running
from test_cpp import SLOW, needs_compiler

from app.access import Access
from app.drain import Drain
from app.metrics import Tally

FIELDS = {"status", "message", "compile_result", "run_result", "executor_pod_name", "files"}
SQUARE = "n = int(input())\nprint(n * n)"


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def run_code(judge: Any, code: str, language: str = "python", **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = judge.post("/run_code", {"code": code, "language": language, **fields})
    assert set(answer) == FIELDS
    return answer


def test_a_good_program_is_a_success_in_their_form(judge: Any) -> None:
    answer = run_code(judge, SQUARE, stdin="7", compile_timeout=10, run_timeout=10, memory_limit_MB=1024)
    run = answer.pop("run_result")
    assert 0 < run.pop("execution_time") < 2
    assert run == {"status": "Finished", "return_code": 0, "stdout": "49\n", "stderr": ""}
    assert answer == {
        "status": "Success",
        "message": "",
        "compile_result": None,
        "executor_pod_name": None,
        "files": {},
    }


def test_an_exception_is_failed_with_return_code_1_and_its_traceback(judge: Any) -> None:
    answer = run_code(judge, "print('before')\n1 / 0")
    run = answer["run_result"]
    assert (answer["status"], run["status"], run["return_code"]) == ("Failed", "Finished", 1)
    assert run["stdout"] == "before\n" and "line 2" in run["stderr"] and "ZeroDivisionError" in run["stderr"]


def test_a_signal_is_a_negative_return_code(judge: Any) -> None:
    answer = run_code(judge, "import os; os.abort()")
    assert (answer["status"], answer["run_result"]["return_code"]) == ("Failed", -6)


def test_a_program_without_end_exceeds_the_time_limit(judge: Any) -> None:
    answer = run_code(judge, "print('before', flush=True)\nwhile True: pass", run_timeout=0.4)
    run = answer["run_result"]
    assert (answer["status"], run["status"], run["return_code"]) == ("Failed", "TimeLimitExceeded", None)
    assert run["stdout"] == "before\n" and 0.4 <= run["execution_time"] < 0.8


def test_the_memory_limit_lowers_the_services_own_and_never_raises_it(judge: Any) -> None:
    hog = "x = b'x' * ({} << 20)\nimport time; time.sleep(0.3)\nprint('had')"
    assert run_code(judge, hog.format(150))["status"] == "Success"
    for asked, given in ((64, 220), (100_000, 700)):
        run = run_code(judge, hog.format(given), memory_limit_MB=asked)["run_result"]
        assert run["return_code"] != 0 and "MemoryError" in run["stderr"] and "had" not in run["stdout"], run
    assert run_code(judge, hog.format(20), memory_limit_MB=64)["status"] == "Success"


def test_output_is_not_cut_at_the_limit_of_the_other_routes(judge: Any) -> None:
    run = run_code(judge, "import sys\nprint('x' * 300_000)\nprint('y' * 200_000, file=sys.stderr)")[
        "run_result"
    ]
    assert (len(run["stdout"]), len(run["stderr"])) == (300_001, 200_001)
    run = run_code(judge, "print('x' * 3_000_000)")["run_result"]
    assert len(run["stdout"]) <= 1 << 20 and "left out" in run["stdout"]


def test_files_come_and_go(judge: Any) -> None:
    answer = run_code(
        judge,
        "import ours\nopen('out/result', 'w').write(ours.text() * 2)\nopen('bytes', 'wb').write(bytes(range(256)))",
        files={
            "ours.py": encode("def text(): return open('data/in').read()"),
            "data/in": encode("ab"),
            "out/empty": encode(""),
            "skipped": None,
        },
        fetch_files=["out/result", "bytes", "data/in", "skipped", "absent", "out"],
    )
    assert answer["status"] == "Success", answer
    files = {name: base64.b64decode(content) for name, content in answer["files"].items()}
    assert files == {"out/result": b"abab", "bytes": bytes(range(256)), "data/in": b"ab"}
    assert judge.prints("import os; print(os.listdir('.'))") == "[]\n"


def test_files_are_fetched_whatever_came_of_the_program(judge: Any) -> None:
    for end in ("raise SystemExit(3)", "while True: pass", "import os; os.kill(os.getpid(), 9)"):
        code = f"open('out', 'w').write('x')\n{end}"
        answer = run_code(judge, code, fetch_files=["out"], run_timeout=0.3)
        assert (answer["status"], answer["files"]) == ("Failed", {"out": encode("x")}), (end, answer)


def test_a_link_or_pipe_that_the_program_made_is_not_fetched(judge: Any) -> None:
    code = "import os\nos.symlink('/etc/passwd', 'a'); os.symlink('/usr', 'b'); os.mkfifo('c')"
    answer = run_code(judge, code, fetch_files=["a", "b", "b/bin/env", "c"])
    assert answer["status"] == "Success" and not {"a", "b", "c"} & set(answer["files"])


def test_files_that_are_too_large_to_fetch_say_so(judge: Any) -> None:
    answer = run_code(judge, "open('a', 'wb').write(bytes(17 << 20))", fetch_files=["a"])
    assert (answer["status"], answer["files"]) == ("Success", {}) and "16 MiB" in answer["message"]


@pytest.mark.parametrize(
    "name", ["/etc/x", "../x", "a/../../x", "a//b", "./a", "", ".", "a/", "a\0b", "\ud800", "x" * 256]
)
def test_a_path_that_leads_elsewhere_is_refused(judge: Any, name: str) -> None:
    for fields in ({"files": {name: ""}}, {"fetch_files": [name]}):
        answer = run_code(judge, "print(1)", **fields)
        assert answer["status"] == "SandboxError" and "path" in answer["message"]
        assert answer["run_result"] is None


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"files": {"a": "", "a/b": ""}}, "folder"),
        ({"files": {"a": "x"}}, "base64"),
        ({"files": {"a": "é"}}, "base64"),
        ({"files": {f"{n}": "" for n in range(300)}}, "too many"),
        ({"code": "'\ud800'"}, "surrogate"),
        ({"stdin": "\ud800"}, "surrogate"),
        ({"language": "cpp", "files": {"program": ""}}, "taken"),
        ({"language": "cpp", "files": {"solution.cpp/a": ""}}, "taken"),
    ],
)
def test_what_cannot_be_run_is_a_sandbox_error_that_says_why(judge: Any, fields: Any, word: str) -> None:
    answer = judge.post("/run_code", {"code": "print(1)", "language": "python", **fields})
    assert (answer["status"], answer["run_result"]) == ("SandboxError", None) and word in answer["message"]


def test_other_languages_are_refused_as_clients_expect(judge: Any) -> None:
    answer = run_code(judge, "", language="go")
    assert answer["status"] == "SandboxError" and "python and cpp" in answer["message"]
    unknown = json.dumps({"code": "", "language": "klingon"}).encode()
    assert judge.request("POST", "/run_code", unknown)[0] == 422
    for bad in ({"run_timeout": 0}, {"code": None}, {"files": []}):
        body = json.dumps({"code": "", "language": "python", **bad}).encode()
        assert judge.request("POST", "/run_code", body)[0] == 422


def test_cpp_has_a_compile_result_and_a_run_result(judge: Any) -> None:
    needs_compiler(judge)
    source = '#include <fstream>\n#include "ours.h"\nint main() { std::ofstream("out") << OURS; return 4; }'
    answer = run_code(
        judge, source, "cpp", files={"ours.h": encode("#define OURS 42")}, fetch_files=["out", "ours.h"]
    )
    assert answer["status"] == "Failed" and answer["files"]["out"] == encode("42")
    assert (answer["compile_result"]["status"], answer["compile_result"]["return_code"]) == ("Finished", 0)
    assert (answer["run_result"]["status"], answer["run_result"]["return_code"]) == ("Finished", 4)
    other = run_code(judge, source, "cpp", files={"ours.h": encode("#define OURS 43")}, fetch_files=["out"])
    assert other["files"]["out"] == encode("43")  # no mix-up with the program that is remembered


def test_a_cpp_program_that_does_not_compile_is_not_run(judge: Any) -> None:
    needs_compiler(judge)
    answer = run_code(judge, "int main() { return x; }", "cpp", fetch_files=["program"])
    assert (answer["status"], answer["run_result"], answer["files"]) == ("Failed", None, {})
    compiled = answer["compile_result"]
    assert (compiled["status"], compiled["return_code"]) == ("Finished", 1)
    assert "solution.cpp:1:21: error:" in compiled["stderr"]
    slow = run_code(judge, SLOW, "cpp", compile_timeout=0.3)
    assert (slow["status"], slow["run_result"]) == ("Failed", None)
    assert (slow["compile_result"]["status"], slow["compile_result"]["return_code"]) == (
        "TimeLimitExceeded",
        None,
    )


def test_it_is_described_and_counted(judge: Any) -> None:
    described = judge.get("/openapi.json")
    assert "/run_code" in described["paths"]
    assert {"200", "422", "504"} <= set(described["paths"]["/run_code"]["post"]["responses"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A service with a token, tight limits and no C++ compiler."""
    limits = {
        "MAX_EXECUTION_TIME": "0.7",
        "MAX_QUEUE_WORK_LIFE_TIME": "0.3",
        "MAX_QUEUE_LENGTH": "3",
        "MAX_DISK": "1",
    }
    settings = {"CODE_JUDGE_TOKEN": "t0k:en", "PRELOAD": "json", "CPP_COMPILER_PATH": "/nowhere/g++"}
    with running(tmp_path_factory.mktemp("small"), "--workers", "1", **limits, **settings) as service:
        yield service


def test_overload_and_waiting_too_long_are_504_so_that_clients_ask_again(small: Judge) -> None:
    body = json.dumps({"code": "while True: pass", "language": "python", "run_timeout": 600}).encode()
    answers: list[tuple[int, Any, dict[str, str]]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(small.request("POST", "/run_code", body)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in answers} == {200, 504}
    refused = [(content, headers) for status, content, headers in answers if status == 504]
    assert all(int(headers["retry-after"]) >= 1 and content["detail"] for content, headers in refused)
    texts = {content["detail"].partition(";")[0] for content, _ in refused}
    assert "no worker was free for 0.3 s" in texts and "too many jobs are waiting" in texts
    ran = [content["run_result"] for status, content, _ in answers if status == 200]
    assert all(run["status"] == "TimeLimitExceeded" and run["execution_time"] < 1.2 for run in ran)


@pytest.mark.parametrize(("path", "status"), [("/run_code", 504), ("/run", 503)])
def test_a_service_that_is_stopping_says_so_in_the_status_that_its_clients_know(
    path: str, status: int
) -> None:
    async def refused() -> list[Any]:
        drain, sent = Drain(5.0), []
        drain._until = 0.0  # as after the first signal

        async def send(message: Any) -> None:
            sent.append(message)

        async def never(*_: Any) -> None:
            raise AssertionError("the request was let in")

        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        await Access(never, Tally(), drain)(scope, never, send)  # type: ignore[arg-type]
        return sent

    start = asyncio.run(refused())[0]
    assert start["status"] == status and b"retry-after" in dict(start["headers"])


def test_files_larger_than_the_disk_are_refused(small: Judge) -> None:
    large = base64.b64encode(bytes((1 << 20) + 1)).decode()
    answer = run_code(small, "print(1)", files={"a": large})
    assert answer["status"] == "SandboxError" and "1 MiB" in answer["message"]


def test_without_a_compiler_the_answer_says_so_and_python_works(small: Judge) -> None:
    assert small.get("/status")["cpp"] == "no"
    result = small.post("/run", {"type": "cpp", "solution": "int main() {}"})
    assert (result["reason"], result["retryable"]) == ("invalid_input", False)
    assert "CPP_COMPILER_PATH" in result["stderr"]
    answer = run_code(small, "int main() {}", "cpp")
    assert answer["status"] == "SandboxError" and "CPP_COMPILER_PATH" in answer["message"]
    assert small.prints("print(1)") == "1\n"


def test_a_client_that_can_send_no_token_sends_it_as_a_password(small: Judge) -> None:
    open_url = small.url + "/run_code"
    secret_url = open_url.replace("://", "://any:t0k%3Aen@")
    for url, problem in (
        (secret_url, None),
        (open_url, "401"),
        (open_url.replace("://", "://any:x@"), "401"),
    ):
        answer, error = stock_client().utils.call_sandbox_api(url, SQUARE, "3", 10, 10, 256)
        assert (answer is None) is (problem is not None) and (problem or "") in (error or ""), (url, error)


# verl's own client


def stock_client() -> ModuleType:
    """verl.utils.reward_score.sandbox_fusion as installed; loaded from its files, without the rest of verl."""
    verl = importlib.util.find_spec("verl")
    if verl is None or verl.origin is None:
        pytest.skip("verl is not installed")
    name = "stock_sandbox_fusion"
    if name not in sys.modules:
        folder = Path(verl.origin).parent / "utils" / "reward_score" / "sandbox_fusion"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def check(judge: Any, code: str, language: str = "python", timeout: int = 1, **problem: Any) -> list[Any]:
    url = judge.url + "/run_code"
    results, metadata = stock_client().check_correctness(url, problem, code, timeout, language=language)
    assert len(metadata) == len(results)
    return results


STDIN = {"inputs": ["3", "4", "-5"], "outputs": ["9\n", "16", "25\n"]}
FUNCTION = {"inputs": ["[1, 2]\n3", "[]\n0"], "outputs": ["[1, 2, 3]", "[0]"], "fn_name": "push"}
PUSH = "def push(values: List[int], more):\n    return values + [more]"


@pytest.mark.parametrize(
    ("code", "results"),
    [
        (SQUARE, [True, True, True]),
        ("n = int(input())\nprint(n * 3)", [True, False, False]),
        ("n = int(input())\nprint(n * n)\nassert n > 0", [True, True, -2]),
        ("n = int(input())\nwhile n == 4: pass\nprint(n * n)", [True, -3, True]),
        ("this is no Python", [-2, -2, -2]),
        ("import os\nos._exit(0)", [False, False, False]),
    ],
)
def test_verls_check_of_stdin_problems_is_right(judge: Any, code: str, results: list[Any]) -> None:
    assert check(judge, code, **STDIN) == results


@pytest.mark.parametrize(
    ("code", "results"),
    [
        (PUSH, [True, True]),
        ("class Solution:\n    def push(self, values, more):\n        return [*values, more]", [True, True]),
        ("def push(values, more):\n    return [*values, 3]", [True, False]),
        (
            "def push(values, more):\n    raise ValueError(more)",
            [False, False],
        ),  # verl's wrapper exits with 0
    ],
)
def test_verls_check_of_function_problems_is_right(judge: Any, code: str, results: list[Any]) -> None:
    assert check(judge, code, **FUNCTION) == results


@pytest.mark.parametrize(
    ("code", "results"),
    [
        ("#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * n; }", [True, True, True]),
        (
            "#include <iostream>\nint main() { int n; std::cin >> n; std::cout << n * 3; }",
            [True, False, False],
        ),
        ("#include <cstdlib>\nint main() { abort(); }", [-2, -2, -2]),
        ("int main() { return", [-4, -4, -4]),
    ],
)
def test_verls_check_of_cpp_programs_is_right(judge: Any, code: str, results: list[Any]) -> None:
    needs_compiler(judge)
    problem = {"inputs": ["3", "4", "-5"], "outputs": ["9", "16", "25"]}
    assert check(judge, code, "cpp", timeout=5, **problem) == results


def test_verls_score_is_the_share_of_passed_tests(judge: Any) -> None:
    url, limit = judge.url + "/run_code", threading.Semaphore(4)
    score = stock_client().compute_score
    good = f"I square it.\n```python\n{SQUARE}\n```\n"
    assert score(url, limit, 1024, good, STDIN)[0] == 1.0
    assert score(url, limit, 1024, good, json.dumps({**STDIN, "outputs": ["9", "0", "25"]}))[0] == 2 / 3
    assert score(url, limit, 1024, "no code at all", STDIN)[0] == 0.0
    asserts = {"assert_case": ["assert push([], 1) == [1]", "assert push([1], 1) == [1]"]}
    pushes = f"```python\nfrom typing import List\n{PUSH}\n```"
    assert score(url, None, 1024, pushes, asserts, continuous=True)[0] == 0.5
