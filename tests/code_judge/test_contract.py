"""The HTTP contract, as a client of the original service knows it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

OUTPUT = {"stdout", "stderr"}
FIELDS = OUTPUT | {
    "sub_id", "success", "run_success", "cost", "reason", "retryable", "exception", "tests"
}  # fmt: skip


def test_ping_answers_pong(judge: Any) -> None:
    assert judge.get("/ping") == "pong"


def test_status_tells_queue_live_workers_and_isolation(judge: Any) -> None:
    status = judge.get("/status")
    assert status["queue"] == 0
    assert status["num_workers"] == 2
    assert status["isolation"]["safe"] is True
    assert status["isolation"]["files"] and status["isolation"]["network"]


def test_run_answers_with_every_field(judge: Any) -> None:
    result = judge.run("print(40 + 2)", sub_id="mine")
    assert set(result) == FIELDS
    assert result["sub_id"] == "mine"
    assert (result["success"], result["run_success"], result["stdout"], result["stderr"]) == (
        True,
        True,
        "42\n",
        "",
    )
    assert (result["reason"], result["retryable"]) == ("", False)
    assert (result["exception"], result["tests"]) == (None, None)
    assert 0 < result["cost"] < 2


def test_judge_answers_without_output(judge: Any) -> None:
    answer = judge.post("/judge", {"type": "python", "solution": "print(1)", "expected_output": "1"})
    assert set(answer) == FIELDS - OUTPUT
    assert answer["success"]


@pytest.mark.parametrize("sub_id", [None, ""])
def test_a_missing_sub_id_becomes_a_uuid4(judge: Any, sub_id: str | None) -> None:
    assert uuid.UUID(judge.run("", sub_id=sub_id)["sub_id"]).version == 4


def test_stdin_reaches_the_program_and_an_absent_one_is_empty(judge: Any) -> None:
    assert judge.prints("print(input()[::-1])", input="abc\n") == "cba\n"
    assert judge.prints("import sys; print(repr(sys.stdin.read()))") == "''\n"


@pytest.mark.parametrize(
    ("printed", "expected", "success"),
    [
        ("1 2\n\n", "  1 2", True),
        ("1  2", "1 2", False),
        ("12", "1", False),
        ("1", "12", False),
        ("", "", True),
    ],
)
def test_success_compares_stripped_stdout(judge: Any, printed: str, expected: str, success: bool) -> None:
    result = judge.run(f"print({printed!r}, end='')", expected_output=expected)
    assert result["run_success"] is True
    assert result["success"] is success


def test_success_compares_the_whole_output_not_the_cut_one(judge: Any) -> None:
    program = "print('a' * 300_000 + {!r})"
    assert judge.run(program.format("b"), expected_output="a" * 300_000 + "b")["success"]
    assert not judge.run(program.format("c"), expected_output="a" * 300_000 + "b")["success"]


def test_a_right_answer_from_a_failing_program_is_no_success(judge: Any) -> None:
    result = judge.run("print(1)\nraise SystemExit(3)", expected_output="1")
    assert (result["success"], result["run_success"], result["reason"]) == (False, False, "")


def test_unknown_fields_are_ignored(judge: Any) -> None:
    assert judge.run("print(1)", unknown={"a": [1]}, options={"unknown": "x"})["success"]


@pytest.mark.parametrize("path", ["/run/batch", "/run/long-batch", "/judge/batch", "/judge/long-batch"])
def test_batches_answer_in_request_order(judge: Any, path: str) -> None:
    items = [
        {
            "sub_id": str(n),
            "type": "python",
            "solution": f"import time; time.sleep({n % 3} / 50); print({n})",
            "expected_output": str(n),
        }
        for n in range(24)
    ]
    answer = judge.post(path, {"sub_id": "b", "type": "batch", "submissions": items})
    assert answer["sub_id"] == "b"
    assert [result["sub_id"] for result in answer["results"]] == [str(n) for n in range(24)]
    assert all(result["success"] for result in answer["results"])
    assert all(("stdout" in result) is path.startswith("/run") for result in answer["results"])


def test_an_item_that_is_no_text_is_invalid_alone(judge: Any) -> None:
    good = {"type": "python", "solution": "print(1)"}
    bad = [
        {**good, "solution": "'\ud800'"},
        {**good, "input": "\udfff"},
        {**good, "expected_output": "\ud800"},
    ]
    results = judge.post("/run/batch", {"submissions": [good, *bad, good]})["results"]
    assert [result["reason"] for result in results] == ["", *["invalid_input"] * 3, ""]
    assert results[0]["success"] and results[4]["success"]
    assert "surrogate" in results[1]["stderr"] and not results[1]["retryable"]


def test_nul_bytes_are_text_like_any_other(judge: Any) -> None:
    assert judge.prints("print(repr(input()))", input="a\0b") == "'a\\x00b'\n"
    assert judge.prints(r"print('a\0b')") == "a\0b\n"
    assert judge.run("print('a\0b')")["exception"] in ("ValueError", "SyntaxError")


def test_output_that_is_not_utf8_is_replaced(judge: Any) -> None:
    assert judge.prints(r"import os; os.write(1, b'a\xff\xc3')") == "a\ufffd\ufffd"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"solution": 1},
        {"solution": "", "type": "ruby"},
        {"solution": "", "options": {"a": 1}},
        [],
        "\ud800",
    ],
)
def test_a_request_of_the_wrong_shape_is_422_and_names_the_place(judge: Any, content: Any) -> None:
    status, answer, _ = judge.request("POST", "/run", json.dumps(content).encode())
    assert status == 422
    assert answer["detail"][0]["loc"][0] == "body"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_is_the_clients_fault(judge: Any, body: bytes) -> None:
    assert judge.request("POST", "/run", body)[0] in (400, 422)


def test_an_empty_batch_is_refused(judge: Any) -> None:
    assert judge.request("POST", "/run/batch", b'{"submissions": []}')[0] == 422


def test_the_timeout_option_lowers_the_limit_but_never_raises_it(judge: Any) -> None:
    assert judge.run("import time; time.sleep(9)", options={"timeout": "0.3"})["cost"] < 1
    assert judge.run("import time; time.sleep(9)", options={"timeout": "60"})["cost"] < 2.5
    assert judge.run("", options={"timeout": "soon"})["reason"] == "invalid_input"


def test_the_seed_option_repeats_random_numbers_and_its_absence_does_not(judge: Any) -> None:
    program = "import random, numpy; print(random.random(), numpy.random.rand())"
    assert judge.prints(program, options={"seed": "7"}) == judge.prints(program, options={"seed": "7"})
    assert judge.prints(program) != judge.prints(program)


@pytest.mark.parametrize(
    "draw", ["random.random()", "random.gauss(0, 1)", "numpy.random.rand()", "numpy.random.randn()"]
)
def test_no_two_programs_draw_the_same(judge: Any, draw: str) -> None:
    submissions = [{"solution": f"import random, numpy; print({draw})"} for _ in range(40)]
    answer = judge.post("/run/batch", {"submissions": submissions})
    assert len({result["stdout"] for result in answer["results"]}) == 40


def test_openapi_is_described(judge: Any) -> None:
    paths = judge.get("/openapi.json")["paths"]
    assert {"/ping", "/status", "/run", "/judge", "/run/batch", "/judge/long-batch"} <= set(paths)


def test_many_clients_at_once_are_all_answered(judge: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(128) as pool:
        outputs = list(pool.map(lambda n: judge.run(f"print({n})")["stdout"], range(256)))
    assert outputs == [f"{n}\n" for n in range(256)]
