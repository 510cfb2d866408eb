"""`cleaner pairs`: what TRL's trainer gets, and what is said about the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from cleaner.cli import main


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "step": 1,
        "uid": "u",
        "reward": float(number % 2),
        "prompt": f"Frage {number} 😀\n",
        "chosen": f"call {number}\u2028",
        "rejected": "broken",
        "decision": "deep" if number % 3 == 0 else "shallow",
        "similarity": 0.5,
        **changes,
    }


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    lines = [line(number) for number in range(6)]
    lines += [line(2), line(6, chosen=None), line(7, prompt="lone \ud83d")]
    text = "".join(json.dumps(each) + "\n" for each in lines)
    (tmp_path / "negatives.jsonl").write_text(text + '{"prompt": "half')
    return tmp_path


def exported(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (run_dir / "pairs.jsonl").read_text().splitlines()]


def test_the_export_is_loaded_by_datasets_with_trls_columns(tmp_path: Path) -> None:
    from datasets import load_dataset

    lines = [line(number) for number in range(5)]
    (tmp_path / "negatives.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert main(["pairs", str(tmp_path)]) == 0
    cache = str(tmp_path / "cache")
    loaded = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=cache)
    assert loaded.column_names == ["prompt", "chosen", "rejected"]
    assert loaded.to_list() == [
        {name: each[name] for name in ("prompt", "chosen", "rejected")} for each in lines
    ]


def test_each_pair_is_written_once_and_what_is_left_out_is_counted(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", str(run_dir)]) == 0
    told = capsys.readouterr().err
    assert "7 of 9 pairs written" in told
    assert "1 lines without texts" in told and "1 repeated" in told
    pairs = exported(run_dir)
    assert [pair["prompt"] for pair in pairs][:2] == ["Frage 0 😀\n", "Frage 1 😀\n"]
    assert pairs[-1]["prompt"] == "lone \ud83d"


def test_filters_are_applied_together(run_dir: Path) -> None:
    assert main(["pairs", str(run_dir), "--min-reward", "1", "--decision", "shallow"]) == 0
    assert [pair["prompt"] for pair in exported(run_dir)] == ["Frage 1 😀\n", "Frage 5 😀\n", "lone \ud83d"]


def test_a_limit_draws_by_its_seed_and_keeps_the_order(run_dir: Path) -> None:
    drawn = []
    for seed in ("1", "1", "2"):
        assert main(["pairs", str(run_dir), "--limit", "3", "--seed", seed]) == 0
        drawn.append([pair["prompt"] for pair in exported(run_dir)])
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 3
    main(["pairs", str(run_dir)])
    order = [pair["prompt"] for pair in exported(run_dir)]
    assert [order.index(prompt) for prompt in drawn[2]] == sorted(map(order.index, drawn[2]))


def test_standard_output_and_details(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", str(run_dir), "--out", "-", "--with-details"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first == line(0) and not (run_dir / "pairs.jsonl").exists()


@pytest.mark.parametrize("there", [True, False])
def test_a_run_without_negative_samples_says_how_to_get_them(
    tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path if there else tmp_path / "nothing"
    assert main(["pairs", str(folder)]) == 2
    told = capsys.readouterr().err
    assert ("cleaner.negatives.save=true" if there else "is no folder") in told


def test_an_export_that_cannot_be_written_leaves_the_old_one(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run_dir / "pairs.jsonl").write_text("old\n")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cleaner.report.pairs.os.replace", full)
    assert main(["pairs", str(run_dir)]) == 2
    assert (run_dir / "pairs.jsonl").read_text() == "old\n" and "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in run_dir.iterdir()) == ["negatives.jsonl", "pairs.jsonl"]
