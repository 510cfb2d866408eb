"""`cleaner eval-report`: known figures of known samples, several runs, and the forms of the output."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleaner.cli import main
from cleaner.evaluation.comparison import compare
from cleaner.evaluation.figures import figures_of, lookahead_of
from cleaner.evaluation.samples import read_evaluation

Make = Callable[..., Any]


def test_accuracy_by_data_source_and_overall(problems: Make, write: Make) -> None:
    lines = problems({"a": [1, 1, 0, 0], "b": [0, 0, 0, 0]}) + problems(
        {"a": [1, 1, 1, 1]}, data_source="gpqa"
    )
    found = figures_of(read_evaluation(write(lines)))
    assert list(found) == ["aime", "gpqa", "overall"]
    aime, overall = found["aime"], found["overall"]
    assert aime.mean is not None and aime.mean.mean == 0.25 and aime.pass_at[1] == 0.25
    # Of two samples of a, one pair in six is wrong twice.
    assert aime.pass_at[2] == pytest.approx((5 / 6) / 2) and aime.pass_at[4] == 0.5
    assert (aime.problems, aime.samples, aime.n) == (2, 8, (4, 4))
    assert overall.mean is not None and overall.mean.mean == pytest.approx((0.5 + 0 + 1) / 3)
    assert overall.pass_at[4] == pytest.approx(2 / 3)


def test_a_vote_counts_answers_that_are_written_differently_together(line: Make, write: Make) -> None:
    answers = [("1/2", 1), (r"\frac{1}{2}", 1), ("0.25", 0), (None, 0)]
    lines = [line(sample=i, pred=pred, acc=acc) for i, (pred, acc) in enumerate(answers)]
    assert figures_of(read_evaluation(write(lines)))["aime"].majority == 1.0
    silent = [line(sample=i, pred=None) for i in range(2)]
    assert figures_of(read_evaluation(write(silent, "silent")))["aime"].majority is None


def test_samples_left_out_count_in_no_score_and_are_told(
    line: Make, write: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        line(acc=1),
        line(sample=1, acc=None, left_out="infrastructure"),
        line(id="q", acc=0, left_out="unscored"),
    ]
    folder = write(lines)
    found = figures_of(read_evaluation(folder))["aime"]
    assert found.mean is not None and found.mean.mean == 1.0
    assert (found.problems, found.samples, found.n) == (1, 1, (1, 1))
    assert found.left_out == {"infrastructure": 1, "unscored": 1}
    assert main(["eval-report", str(folder)]) == 0
    assert "1 samples are left out of the scores: infrastructure" in capsys.readouterr().out


def test_figures_of_tools_are_ratios_of_sums_and_tokens_means(line: Make, write: Make) -> None:
    idle = {
        "calls": 0,
        "calls_ok": 0,
        "first_calls": 0,
        "first_calls_ok": 0,
        "final_calls": 0,
        "final_calls_ok": 0,
    }
    quiet = line(
        sample=1,
        saar=idle,
        ending="length",
        turns=1,
        generated_tokens=20,
        discarded_tokens=0,
        response_tokens=20,
    )
    tools = figures_of(read_evaluation(write([line(), quiet])))["aime"].tools
    assert (tools.used, tools.calls, tools.first_failed, tools.final_failed) == (0.5, 1.5, 0.5, 0.0)
    assert (tools.generated_tokens, tools.kept_tokens, tools.discarded_tokens) == (40, 30, 10)
    assert (tools.turns, tools.response_tokens, tools.seconds) == (2, 35, 2.0)
    assert tools.endings == {"answer": 0.5, "length": 0.5} and tools.rollbacks["shallow"] == 0.5


def test_samples_of_an_agent_loop_without_counts_have_no_tool_figures(line: Make, write: Make) -> None:
    tools = figures_of(read_evaluation(write([line(saar=None)])))["aime"].tools
    assert (tools.used, tools.calls, tools.first_failed, tools.final_failed) == (None, None, None, None)


def test_runs_are_compared_problem_by_problem(problems: Make, write: Make) -> None:
    first = read_evaluation(write(problems({"a": [0, 0], "b": [1, 1], "c": [1, 0], "gone": [1, 1]}), "first"))
    second = read_evaluation(
        write(problems({"a": [1, 0], "b": [1, 1], "c": [0, 0], "new": [0, 0]}), "second")
    )
    found = compare(second, first)
    assert list(found) == ["aime", "overall"]
    of = found["overall"]
    assert (of.problems, of.unmatched, of.better, of.worse, of.equal) == (3, 2, 1, 1, 1)
    assert of.difference is not None and of.difference.mean == pytest.approx(0.0)


def test_paired_differences_are_surer_than_the_runs_themselves(problems: Make, write: Make) -> None:
    # Every second problem is easy; the second run solves one sample in four more of each hard one.
    hard, easy = {f"h{i}": i for i in range(20)}, {f"e{i}": i for i in range(20)}
    first = write(problems({**{k: [0] * 4 for k in hard}, **{k: [1] * 4 for k in easy}}), "first")
    second = write(problems({**{k: [1, 0, 0, 0] for k in hard}, **{k: [1] * 4 for k in easy}}), "second")
    runs = [read_evaluation(folder) for folder in (first, second)]
    difference = compare(runs[1], runs[0])["overall"].difference
    assert difference is not None and difference.low is not None and difference.low > 0
    means = [figures_of(run)["overall"].mean for run in runs]
    assert means[0] is not None and means[1] is not None
    assert means[0].high is not None and means[1].low is not None and means[0].high > means[1].low


def test_whether_there_was_a_lookahead_is_told(line: Make, write: Make) -> None:
    assert lookahead_of(read_evaluation(write([line(lookahead=True)], "a"))) is True
    assert lookahead_of(read_evaluation(write([line(lookahead=False)], "b"))) is False
    assert lookahead_of(read_evaluation(write([line(), line(sample=1, lookahead=False)], "c"))) is None


@pytest.fixture
def two_runs(problems: Make, write: Make) -> list[str]:
    without = write(problems({"a": [0, 1], "b": [0, 0]}, lookahead=False), "without")
    return [str(without), str(write(problems({"a": [1, 1], "b": [0, 0]}), "with"))]


def test_the_table_shows_runs_side_by_side_and_their_difference(
    two_runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval-report", *two_runs]) == 0
    printed = capsys.readouterr().out
    rows = [row.split() for row in printed.splitlines()]
    assert ["aime", "without", "2", "2", "25.0", "[0.0,", "50.0]", "50.0", "25.0"] in [
        row[:9] for row in rows
    ]
    assert "without look-ahead" in printed and "with look-ahead" in printed
    assert "with minus without" in printed and "+25.0 [+0.0, +50.0]" in printed


def test_json_and_csv_say_the_same_with_all_digits(
    two_runs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval-report", *two_runs, "--json", "--name", "off", "--name", "on"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [run["name"] for run in told["runs"]] == ["off", "on"]
    assert told["runs"][0]["figures"]["aime"]["mean"]["mean"] == 0.25
    assert told["differences"][0]["by_source"]["overall"]["difference"]["mean"] == 0.25
    assert main(["eval-report", *two_runs, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["run"], row["data_source"]) for row in rows] == [
        ("without", "aime"), ("without", "overall"), ("with", "aime"), ("with", "overall"),
    ]  # fmt: skip
    assert float(rows[2]["mean"]) == 0.5 and float(rows[2]["difference_to_first"]) == 0.25
    assert rows[0]["difference_to_first"] == "" and float(rows[0]["pass@2"]) == 0.5


def test_wrong_input_is_an_error_on_one_line(two_runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval-report", "no/such/run"]) == 2
    assert capsys.readouterr().err.startswith("error: no/such/run: no such file")
    assert main(["eval-report", *two_runs, "--name", "only"]) == 2
    assert "once for each run" in capsys.readouterr().err


def test_hostile_names_cannot_touch_the_terminal(
    line: Make, write: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval-report", str(write([line(data_source="a\x1b[31m\nb")]))]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "a␛[31m b" in printed


def test_the_report_needs_neither_torch_nor_verl(line: Make, write: Make) -> None:
    script = (
        "import sys; from cleaner.cli import main; main(['eval-report', sys.argv[1]])\n"
        "heavy = {'torch', 'verl', 'ray', 'transformers', 'pandas', 'pyarrow', 'omegaconf'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    folder = write([line()])
    result = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
