"""`cleaner pairs`: what TRL's trainer gets, and what is said about the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cleaner.cli import main
from cleaner.json_lines import append_json_lines

COLUMNS = ["prompt", "chosen", "rejected"]
Line = dict[str, Any]


def line(number: int, **changes: Any) -> Line:
    """A line as the trainer writes it; every second has reward 1, every third is deep."""
    return {
        "schema": 1,
        "step": 1,
        "uid": "u",
        "index": number,
        "session": 0,
        "data_source": "made",
        "reward": float(number % 2),
        "accuracy": None,
        "prompt": f"Frage {number} 😀\r\n",
        "chosen": f"call {number}\u2028\t\0",
        "rejected": "broken 中",
        "decision": "deep" if number % 3 == 0 else "shallow",
        "similarity": 0.5,
        "turn": 0,
        "error": {"status": "program_error", "exception": "NameError", "text": "no x", "retryable": False},
        **changes,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[list[Line]], Path]:
    """Writes a run folder's negative samples by the trainer's own writer."""

    def to_folder(lines: list[Line]) -> Path:
        append_json_lines(tmp_path / "negatives.jsonl", lines)
        return tmp_path

    return to_folder


@pytest.fixture
def run_dir(write: Callable[[list[Line]], Path]) -> Path:
    """Six pairs, one of them twice, and all that may be wrong: 10 lines, and an empty one."""
    folder = write([line(number) for number in range(6)] + [line(2, step=9), line(6, chosen=None)])
    with (folder / "negatives.jsonl").open("a") as file:
        file.write('not json\n\n{"prompt": "half')
    return folder


def exported(run_dir: Path) -> list[Line]:
    return [json.loads(text) for text in (run_dir / "pairs.jsonl").read_text().splitlines()]


def numbers(pairs: list[Line]) -> list[int]:
    return [int(pair["prompt"].split()[1]) for pair in pairs]


def loaded(path: Path, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))


def test_the_export_is_loaded_by_datasets_with_trls_columns(
    write: Callable[[list[Line]], Path], tmp_path: Path
) -> None:
    lines = [line(number) for number in range(5)]
    assert main(["pairs", str(write(lines))]) == 0
    data = loaded(tmp_path / "pairs.jsonl", tmp_path / "cache")
    assert data.column_names == COLUMNS
    assert data.to_list() == [{name: each[name] for name in COLUMNS} for each in lines]


@pytest.mark.parametrize("options", [[], ["--with-details"]])
def test_a_lone_surrogate_is_spelt_out_and_the_export_still_loads(
    write: Callable[[list[Line]], Path], tmp_path: Path, options: list[str]
) -> None:
    error = {"status": "program_error", "exception": None, "text": "\udc80", "retryable": False}
    folder = write([line(0), line(1, chosen="lone \ud83d, pair 😀", error=error)])
    assert main(["pairs", str(folder), *options]) == 0
    data = loaded(folder / "pairs.jsonl", tmp_path / "cache")
    assert data["chosen"] == [line(0)["chosen"], r"lone \ud83d, pair 😀"]
    if options:
        assert data[1]["error"]["text"] == r"\udc80"


def test_each_pair_is_written_once_and_what_is_left_out_is_counted(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", str(run_dir)]) == 0
    told = capsys.readouterr().err
    assert told.startswith("6 of 10 pairs written to ") and told.count("\n") == 1
    assert told.endswith("left out: 1 repeated, 1 without the three texts, 1 broken, 1 half-written\n")
    assert numbers(exported(run_dir)) == [0, 1, 2, 3, 4, 5]


def test_pairs_that_differ_in_one_text_are_all_kept(write: Callable[[list[Line]], Path]) -> None:
    folder = write(
        [line(0, prompt="a", chosen="b", rejected="c")]
        + [line(0, prompt="ab", chosen="", rejected="c"), line(0, prompt="a", chosen="bc", rejected="")]
    )
    assert main(["pairs", str(folder)]) == 0
    assert len(exported(folder)) == 3


def test_a_last_line_without_its_newline_counts_if_it_is_whole(run_dir: Path) -> None:
    with (run_dir / "negatives.jsonl").open("a") as file:
        file.write('"}\n' + json.dumps(line(7)))
    assert main(["pairs", str(run_dir)]) == 0
    assert numbers(exported(run_dir))[-1] == 7


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--min-reward", "1"], [1, 3, 5]),
        (["--min-reward", "-1"], [0, 1, 2, 3, 4, 5]),
        (["--decision", "deep"], [0, 3]),
        (["--decision", "shallow", "--min-reward", "0.5"], [1, 5]),
    ],
)
def test_filters_keep_what_they_name(run_dir: Path, options: list[str], kept: list[int]) -> None:
    assert main(["pairs", str(run_dir), *options]) == 0
    assert numbers(exported(run_dir)) == kept


def test_a_pair_without_a_reward_reaches_no_least_reward(write: Callable[[list[Line]], Path]) -> None:
    folder = write([line(0, reward=None), line(1), line(2, reward=float("nan"))])
    assert main(["pairs", str(folder), "--min-reward", "-9"]) == 0
    assert numbers(exported(folder)) == [1]


def test_a_limit_draws_by_its_seed_and_keeps_the_order(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = []
    for seed in ("1", "1", "2"):
        assert main(["pairs", str(run_dir), "--limit", "3", "--seed", seed]) == 0
        drawn.append(numbers(exported(run_dir)))
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(each) == 3 and each == sorted(each) for each in drawn)
    assert "3 beyond the limit" in capsys.readouterr().err
    assert main(["pairs", str(run_dir), "--limit", "99"]) == 0
    assert len(exported(run_dir)) == 6


def test_standard_output_gets_the_pairs_only_and_details_keep_all_fields(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", str(run_dir), "--out", "-", "--with-details"]) == 0
    told = capsys.readouterr()
    assert [json.loads(text) for text in told.out.split("\n")[:-1]] == [line(number) for number in range(6)]
    assert "written to standard output" in told.err and not (run_dir / "pairs.jsonl").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_run_without_negative_samples_says_how_to_get_them(
    tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path if there else tmp_path / "nothing"
    assert main(["pairs", str(folder)]) == 2
    told = capsys.readouterr().err
    assert ("cleaner.negatives.save=true" if there else "is no folder") in told


@pytest.mark.parametrize("options", [["--min-reward", "2"], ["--limit", "0"]])
def test_an_export_of_nothing_is_refused_and_leaves_the_old_one(
    run_dir: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "pairs.jsonl").write_text("old\n")
    assert main(["pairs", str(run_dir), *options]) == 2
    told = capsys.readouterr().err
    assert "no pair is left of 10" in told and "Relax the options" in told
    assert (run_dir / "pairs.jsonl").read_text() == "old\n"


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("negatives.jsonl", "the negative samples themselves"),
        ("link.jsonl", "the negative samples themselves"),
        ("pipe", "no regular file"),
        ("folder", "no regular file"),
        ("missing/pairs.jsonl", "is no folder"),
    ],
)
def test_what_must_not_be_replaced_is_not(
    run_dir: Path, out: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_dir / "link.jsonl").symlink_to("negatives.jsonl")
    os.mkfifo(run_dir / "pipe")
    (run_dir / "folder").mkdir()
    before = (run_dir / "negatives.jsonl").read_bytes()
    assert main(["pairs", str(run_dir), "--out", str(run_dir / out)]) == 2
    assert told in capsys.readouterr().err
    assert (run_dir / "negatives.jsonl").read_bytes() == before and (run_dir / "pipe").is_fifo()


def test_a_link_is_written_through(run_dir: Path) -> None:
    (run_dir / "link.jsonl").symlink_to("pairs.jsonl")
    assert main(["pairs", str(run_dir), "--out", str(run_dir / "link.jsonl")]) == 0
    assert (run_dir / "link.jsonl").is_symlink() and len(exported(run_dir)) == 6


def test_an_export_that_does_not_fit_leaves_the_old_one(write: Callable[[list[Line]], Path]) -> None:
    folder = write([line(number, prompt=f"{number} " * 1000) for number in range(9)])
    (folder / "pairs.jsonl").write_text("old\n")
    limited = 'ulimit -f 4; exec "$@"'  # kB a file, or half that: a full disk in small
    command = ["sh", "-c", limited, "sh", sys.executable, "-m", "cleaner.cli", "pairs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert (folder / "pairs.jsonl").read_text() == "old\n"
    assert sorted(path.name for path in folder.iterdir()) == ["negatives.jsonl", "pairs.jsonl"]


def test_exporting_is_quiet_about_a_reader_that_leaves(write: Callable[[list[Line]], Path]) -> None:
    folder = write([line(number, prompt=f"{number} " * 1000) for number in range(200)])
    command = [sys.executable, "-m", "cleaner.cli", "pairs", str(folder), "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b'{"prompt"')
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(60) == 0


def test_exporting_imports_nothing_heavy(run_dir: Path) -> None:
    script = (
        "import sys\nfrom cleaner import cli\nassert cli.main(sys.argv[1:]) == 0\n"
        "sys.exit(', '.join(sorted({'torch', 'verl', 'ray', 'numpy', 'datasets'} & set(sys.modules))) or 0)"
    )
    command = [sys.executable, "-c", script, "pairs", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"imports {done.stderr}"
