"""`cleaner lcb-export` against what LiveCodeBench's evaluator asks of the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleaner.cli import main
from cleaner.evaluation.code_blocks import last_python_block

Make = Callable[..., Any]


def as_livecodebench_reads(path: Path, release: list[str]) -> dict[str, list[str]]:
    """The programs that it grades for each question, by the checks of its `custom_evaluator`, July 2025."""
    outputs = json.loads(path.read_text())
    assert isinstance(outputs, list)
    assert len(outputs) == len(release), f"{len(outputs)} != {len(release)}"
    assert all(isinstance(entry, dict) for entry in outputs)
    programs = [e["code_list"] for e in sorted(outputs, key=lambda e: str(e["question_id"]))]
    assert all(isinstance(codes, list) and all(isinstance(code, str) for code in codes) for codes in programs)
    assert all(len(codes) == len(programs[0]) for codes in programs)
    return dict(zip(sorted(release), programs, strict=True))


def response(code: str) -> str:
    return f"I think.\n```python\n{code}\n```\nThat is it.<|im_end|>"


@pytest.fixture
def samples(line: Make, write: Make) -> Callable[..., Path]:
    """A run directory with n samples of each question, whose programs say which they are; ids out of order."""

    def make(questions: list[str], n: int = 2, **fields: Any) -> Path:
        lines = [
            line(
                **{"data_source": "lcb_v6", "id": q, "sample": i, "response": response(f"{q}-{i}"), **fields}
            )
            for q in questions
            for i in reversed(range(n))
        ]
        return write(lines)

    return make


def test_every_question_gets_its_own_programs_in_sample_order(samples: Make, tmp_path: Path) -> None:
    release = ["abc_2", "3700", "arc_10", "380"]
    out = tmp_path / "out.json"
    assert main(["lcb-export", str(samples(release)), "-o", str(out)]) == 0
    read = as_livecodebench_reads(out, release)
    assert read == {question: [f"{question}-0", f"{question}-1"] for question in release}


@pytest.mark.parametrize(
    "text",
    [
        '["a", "b", "c"]',
        '[{"question_id": "a"}, {"question_id": "b"}, {"question_id": "c"}]',
        '{"question_id": "a"}\n{"question_id": "b"}\n{"question_id": "c"}\n',
        "a\nb\n\nc\n",
    ],
)
def test_questions_of_the_release_without_a_sample_are_named_and_filled_on_request(
    samples: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    questions, out = tmp_path / "questions", tmp_path / "out.json"
    questions.write_text(text)
    run = ["lcb-export", str(samples(["b"])), "-o", str(out), "--questions", str(questions)]
    assert main(run) == 0
    assert "2 questions (a, c) are missing: LiveCodeBench refuses" in capsys.readouterr().err
    with pytest.raises(AssertionError):
        as_livecodebench_reads(out, ["a", "b", "c"])
    assert main([*run, "--fill"]) == 0
    assert "got empty programs" in capsys.readouterr().err
    assert as_livecodebench_reads(out, ["a", "b", "c"]) == {"a": ["", ""], "b": ["b-0", "b-1"], "c": ["", ""]}


def test_questions_may_come_from_parquet(samples: Make, tmp_path: Path, capsys: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    questions = tmp_path / "release.parquet"
    pq.write_table(pa.table({"question_id": ["a", "b"]}), questions)
    assert (
        main(
            ["lcb-export", str(samples(["a"])), "-o", str(tmp_path / "o.json"), "--questions", str(questions)]
        )
        == 0
    )
    assert "1 question (b) is missing" in capsys.readouterr().err


def test_a_question_of_another_release_would_shift_all_others_and_is_left_out(
    samples: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, out = tmp_path / "q.json", tmp_path / "out.json"
    questions.write_text('["b", "c"]')
    assert (
        main(["lcb-export", str(samples(["a", "b", "c"])), "-o", str(out), "--questions", str(questions)])
        == 0
    )
    assert "1 question (a) is not of this release" in capsys.readouterr().err
    assert as_livecodebench_reads(out, ["b", "c"])["b"] == ["b-0", "b-1"]


def test_every_question_has_as_many_programs(
    line: Make, write: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line(id="a", sample=0, response=response("x")), line(id="a", sample=1, response="no code")]
    lines.append(line(id="b", sample=0, response=response("y")))
    out = tmp_path / "out.json"
    assert main(["lcb-export", str(write(lines)), "-o", str(out)]) == 0
    assert as_livecodebench_reads(out, ["a", "b"]) == {"a": ["x", ""], "b": ["y", ""]}
    told = capsys.readouterr().err
    assert "1 responses have no closed ```python block" in told and "1 empty programs were added" in told


def test_livecodebench_is_found_among_other_data_sources_or_asked_for(
    line: Make, write: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        line(id="q", response=response("x"), data_source=source) for source in ("aime", "livecodebench/v6")
    ]
    out = tmp_path / "out.json"
    assert main(["lcb-export", str(write(lines)), "-o", str(out)]) == 0
    assert len(json.loads(out.read_text())) == 1
    both = [line(id="q", response=response("x"), data_source=source) for source in ("aime", "gpqa")]
    assert main(["lcb-export", str(write(both, "both")), "-o", str(out)]) == 2
    assert "Choose with --data-source: aime, gpqa" in capsys.readouterr().err
    assert main(["lcb-export", str(write(both, "both")), "-o", str(out), "--data-source", "gpqa"]) == 0


def test_wrong_input_is_an_error_and_writes_nothing(
    line: Make, samples: Make, write: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, questions = tmp_path / "out.json", tmp_path / "q.json"
    questions.write_text('[{"id": 1}]')
    folder = str(samples(["a"]))
    assert main(["lcb-export", folder, "-o", str(out), "--questions", str(questions)]) == 2
    assert "q.json, entry 1: no question id" in capsys.readouterr().err
    assert main(["lcb-export", folder, "-o", str(out), "--fill"]) == 2
    assert "--fill needs --questions" in capsys.readouterr().err
    mixed = [line(id="a", prompt_digest="one"), line(id="a", prompt_digest="two")]
    assert main(["lcb-export", str(write(mixed, "mixed")), "-o", str(out)]) == 2
    assert "samples of several prompts" in capsys.readouterr().err
    assert main(["lcb-export", folder, "-o", "/dev/null/out.json"]) == 2
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\na\n```\ntext\n```python\nb\nc\n```", "b\nc"),
        ("```python\na\n```\n```python\ncut off", "a"),
        ("```python\ncut off", ""),
        ("```\nno language\n```", ""),
        ("no code", ""),
        ("```Python \r\nx = 1\r\n```", "x = 1"),
        ("```python\n```", ""),
        ("  ```py\n  x\n  ```", "  x"),
        (
            "```python\nmine\n```<|im_start|>user\n<tool_response>\n```python\nnot mine\n```\n</tool_response>",
            "mine",
        ),
        ("```python\nprint('```')\n```", "print('```')"),
        ("```cpp\nint x;\n```\n", ""),
        ("```python\nleft open\n```python\nb\n```", "b"),
        ("```python\na\n```\n```python\nleft open\n```python\nand again", "a"),
    ],
)
def test_the_program_is_the_last_closed_python_block_that_the_model_wrote(text: str, code: str) -> None:
    assert last_python_block(text) == code


def test_a_long_response_without_an_end_is_read_in_no_time() -> None:
    assert last_python_block("```python\n" * 50_000) == ""
