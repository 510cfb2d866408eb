"""Filtering by pass rate: the published numbers, the strata, the join with a dataset, and what is reported."""

import json
import os
import resource
import subprocess
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_statistics import PUBLISHED, TOTAL, write_statistics

from cleaner.data.filter import main
from cleaner.data.rate_filter import DEFAULT_RATIOS, parse_ratios, select
from cleaner.data.row_files import read_rows
from cleaner.data.sources import is_code
from cleaner.data.statistics import PassRate, read_rates, write_rates
from cleaner.errors import ConfigError

ROOT = Path(__file__).parents[2]
# The published file itself, where there is one: the same counts must come out.
REAL = os.environ.get("PUBLISHED_STATISTICS")


@pytest.fixture(scope="module", params=["made", "published"])
def published(request, tmp_path_factory) -> Path:
    if request.param == "made":
        return write_statistics(tmp_path_factory.mktemp("statistics") / "success.jsonl")
    if not REAL:
        pytest.skip("PUBLISHED_STATISTICS names no file")
    return Path(REAL)


def statistics(tmp_path: Path, *rows: tuple[str, str, float]) -> Path:
    path = tmp_path / "stats.jsonl"
    write_rates([PassRate(uid, source, 0, 8, rate, rate, True) for uid, source, rate in rows], path)
    return path


def filtered(capsys, *arguments: object) -> tuple[str, str]:
    assert main([str(argument) for argument in arguments]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def refusal(capsys, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("data_filter: ") and error.count("\n") == 1
    return error


def test_the_defaults_keep_the_published_number_of_rows(published):
    rates = read_rates(published)
    assert len(rates) == TOTAL
    kept = select(rates, parse_ratios(DEFAULT_RATIOS), retain_code=False, seed=0).kept
    assert len(kept) == 15353
    assert sum(is_code(rates[uid][0]) for uid in kept) == 2134


def test_retained_code_is_all_code_that_was_ever_solved(published):
    rates = read_rates(published)
    kept = select(rates, parse_ratios(DEFAULT_RATIOS), retain_code=True, seed=0).kept
    code = [uid for uid, (source, rate) in rates.items() if is_code(source) and rate > 0]
    assert len(code) == 2421 and kept.issuperset(code)
    assert len(kept) == 15640


def test_the_whole_command_takes_less_than_a_second_of_processor_time(published, tmp_path):
    """Of processor time, the interpreter's start included, and the best of three: on a busy machine both vary."""
    sources = [source for source, _ in read_rates(published).values()]
    dataset = tmp_path / "rows.parquet"
    text = pa.array(["A problem of some length. " * 20] * TOTAL)
    pq.write_table(pa.table({"data_source": sources, "problem": text}), dataset)
    script = str(ROOT / "data_filter.sh")
    command = ["bash", script, "--stats", published, "--dataset", dataset, "--output_dir", tmp_path]
    seconds = []
    while len(seconds) < 3 and min(seconds, default=1.0) >= 1.0:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0, result.stderr
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 1.0
    assert pq.read_metadata(tmp_path / "filtered_sr.parquet").num_rows == 15353


def test_the_table_tells_rates_categories_and_sources_before_and_after(published, tmp_path, capsys):
    out, err = filtered(capsys, "--stats", published, "--output_dir", tmp_path)
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert {"1/8 2,249 1,798 79.9 %", "code 4,310 2,134 49.5 %", "all 30,128 15,353 51.0 %"} <= lines
    assert all(
        any(line.startswith(f"{source} {sum(counts):,} ") for line in lines)
        for source, counts in PUBLISHED.items()
    )
    assert err == ""
    report = json.loads((tmp_path / "filtered_sr.json").read_text())
    assert report["groups"]["category"]["code"] == {"before": 4310, "after": 2134}
    uids = (tmp_path / "filtered_sr.uids.txt").read_text().split()
    assert len(uids) == len(set(uids)) == 15353


@given(
    counts=st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(1, 40)), max_size=12),
    ratio=st.integers(0, 100),
    seed=st.integers(0, 3),
)
def test_of_every_stratum_the_whole_part_of_its_share_is_kept(counts, ratio, seed):
    rates = {}
    for k, code, count in counts:
        for _ in range(count):
            rates[str(len(rates))] = ("train-code-x" if code else "math", k / 8)
    kept = select(rates, dict.fromkeys([k / 8 for k in range(9)], Fraction(ratio, 100)), False, seed).kept
    before, after = Counter(rates.values()), Counter(rates[uid] for uid in kept)
    assert all(after[stratum] == count * ratio // 100 for stratum, count in before.items())
    # Not the order of the lines decides.
    reordered = dict(sorted(rates.items(), reverse=True))
    assert (
        select(reordered, dict.fromkeys([k / 8 for k in range(9)], Fraction(ratio, 100)), False, seed).kept
        == kept
    )


def test_another_seed_draws_other_rows(published):
    rates, ratios = read_rates(published), parse_ratios(DEFAULT_RATIOS)
    first, again, other = (select(rates, ratios, False, seed).kept for seed in (0, 0, 1))
    assert first == again != other and len(other) == len(first)


def test_ratios_may_be_pairs_or_nine_numbers():
    assert parse_ratios("0,.8,.9,1,1,1,1,1,0") == parse_ratios(DEFAULT_RATIOS)
    assert parse_ratios("0.0:0.0, 0.3:0.5")[0.3] == Fraction(1, 2)
    assert parse_ratios("0:0")[0.5] == 1
    # As floats, 0.29 of a hundred rows is 28.999.
    rates = {str(n): ("math", 0.5) for n in range(100)}
    assert len(select(rates, parse_ratios("0.5:0.29"), False, 0).kept) == 29


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1", "2 numbers; give nine"),
        ("", "0 numbers; give nine"),
        ("0:0,1", "'1' is no pair"),
        ("0:0,0.0:1", "'0.0:1' names the rate 0 a second time"),
        ("0.5:1.2", "'0.5:1.2' is not from 0 to 1"),
        ("-1:0", "'-1:0' is not from 0 to 1"),
        ("0.5:x", "'0.5:x' is not a number"),
        ("0.5:nan", "'0.5:nan' is not a number"),
    ],
)
def test_wrong_ratios_are_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_ratios(text)


def test_rows_of_a_dataset_are_kept_as_they_were_with_their_id(tmp_path, raw, write, capsys):
    rows = [raw["math_dapo"], raw["code"], raw["math_dapo"], raw["code"]]
    dataset = write(*rows)
    stats = statistics(tmp_path, *((str(n), row["data_source"], n / 8) for n, row in enumerate(rows)))
    out, err = filtered(
        capsys,
        "--stats",
        stats,
        "--dataset",
        dataset,
        "--success_rate_ratios",
        "0:0,0.125:1",
        "--output_dir",
        tmp_path,
    )
    assert "ids: the row's number" in out and err == ""
    kept = pq.read_table(tmp_path / "filtered_sr.parquet").to_pylist()
    originals = pq.read_table(dataset).to_pylist()
    assert kept == [{**originals[n], "uid": str(n)} for n in (1, 2, 3)]
    # A run reads them with the ids that the statistics have.
    assert [row["extra_info"]["uid"] for row in read_rows(tmp_path / "filtered_sr.parquet", True)] == [
        "1",
        "2",
        "3",
    ]
    assert dataset.exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("column", ["uid", "extra_info.uid", "extra_info.index", "question_id"])
def test_rows_are_found_by_whatever_column_holds_the_ids(tmp_path, raw, write, capsys, column):
    rows = []
    for n in range(4):
        top, _, inner = column.partition(".")
        value = f"id-{n}"
        rows.append({**raw["code"], top: {**raw["code"]["extra_info"], inner: value} if inner else value})
    stats = statistics(tmp_path, *((f"id-{n}", "train-code-taco-easy", 0.5) for n in (3, 1)))
    out, err = filtered(capsys, "--stats", stats, "--dataset", write(*rows), "--output_dir", tmp_path)
    assert f"ids: {column}" in out
    assert "2 rows of the dataset have no statistics and are left out: id-0, id-2" in err
    kept = pq.read_table(tmp_path / "filtered_sr.parquet").column("uid").to_pylist()
    assert kept == ["id-1", "id-3"]


def test_row_groups_are_filtered_one_by_one(tmp_path, capsys):
    table = pa.table({"data_source": ["math"] * 50, "n": list(range(50))})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=7)
    stats = statistics(tmp_path, *((str(n), "math", (n % 2) / 2) for n in range(50)))
    filtered(capsys, "--stats", stats, "--dataset", tmp_path / "rows.parquet", "--success_rate_ratios", "0:0")
    assert pq.read_table(tmp_path / "filtered_sr.parquet").column("n").to_pylist() == list(range(1, 50, 2))


def test_nothing_is_left_out_in_silence(tmp_path, raw, write, capsys):
    dataset = write(*[raw["math_dapo"]] * 5)
    stats = statistics(
        tmp_path,
        ("0", "math_dapo", 0.5),
        ("1", "math_dapo", 5 / 7),
        ("2", "another source", 0.5),
        ("3", "math_dapo", 0.25),
        ("900", "math_dapo", 0.5),
    )
    _, err = filtered(capsys, "--stats", stats, "--dataset", dataset, "--output_dir", tmp_path / "new")
    assert err.splitlines() == [
        "warning: 1 rows of the dataset have no statistics and are left out: 4",
        "warning: 1 rows have another data_source in the statistics and are left out: 2",
        "warning: 1 uids of the statistics are not in the dataset: 900",
        "warning: 1 rows with the rate 0.714286, which has no ratio, are left out: 1",
    ]
    notes = json.loads((tmp_path / "new" / "filtered_sr.json").read_text())["notes"]
    assert [note["uids"] for note in notes] == [["4"], ["2"], ["900"], ["1"]]


def test_an_odd_rate_is_kept_by_a_pair_that_names_it(tmp_path, capsys):
    stats = statistics(tmp_path, ("0", "math", 5 / 7), ("1", "math", 1.0))
    _, err = filtered(capsys, "--stats", stats, "--success_rate_ratios", "0.714286:1,1:0")
    assert err == "" and (tmp_path / "filtered_sr.uids.txt").read_text() == "0\n"


GOOD = '{"uid": "0", "data_source": "m", "success_rate": 0.5}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"uid": "1", "data_source": "m", "success_rate": 0.', "line 2: not JSON"),
        ('{"uid": "1", "data_source": "m"}', "line 2: no key 'success_rate' (it has: uid, data_source)"),
        (
            '{"uid": "1", "data_source": "m", "success_rate": 1.5}',
            "line 2: 'success_rate' must be from 0 to 1, got 1.5",
        ),
        (
            '{"uid": "1", "data_source": "m", "success_rate": "0"}',
            "line 2: 'success_rate' must be a number, got '0'",
        ),
        ('{"uid": "1", "data_source": "m", "success_rate": NaN}', "line 2: 'success_rate' must be a number"),
        (
            '{"uid": null, "data_source": "m", "success_rate": 0}',
            "line 2: 'uid' must be text or a whole number",
        ),
        ('{"uid": "1", "data_source": 3, "success_rate": 0}', "line 2: 'data_source' must be text, got 3"),
        ("[1]", "line 2: must be an object, got [1]"),
        ("1, 2", "line 2: not JSON"),
        (GOOD, "line 2: uid '0' was there before"),
    ],
)
def test_a_bad_line_is_named(tmp_path, capsys, line, message):
    path = tmp_path / "stats.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    assert f"{path}, {message}" in refusal(capsys, "--stats", path)
    assert not (tmp_path / "filtered_sr.json").exists()


def test_statistics_with_blank_lines_and_numbers_for_uids_are_read(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text(GOOD.replace('"0"', "17") + "\n\n" + GOOD + "\n")
    assert read_rates(path) == {"17": ("m", 0.5), "0": ("m", 0.5)}


def test_wrong_files_are_explained(tmp_path, raw, write, capsys):
    stats = statistics(tmp_path, ("0", "math", 0.5))
    assert "gone.jsonl: cannot be read (No such file" in refusal(capsys, "--stats", tmp_path / "gone.jsonl")
    missing = tmp_path / "gone.parquet"
    assert "dataset/download.sh" in refusal(capsys, "--stats", stats, "--dataset", missing)
    assert "not a readable parquet" in refusal(capsys, "--stats", stats, "--dataset", stats)
    assert "none of its 1 rows is in the statistics" in refusal(
        capsys, "--stats", stats, "--dataset", write(raw["code"])
    )
    assert "no row is left" in refusal(capsys, "--stats", stats, "--success_rate_ratios", "0.5:0")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "holds no line" in refusal(capsys, "--stats", empty)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot write to" in refusal(capsys, "--stats", stats, "--output_dir", blocked / "below")


def test_the_command_imports_neither_torch_nor_pandas_nor_verl(tmp_path):
    stats = statistics(tmp_path, ("0", "math", 0.5))
    pq.write_table(pa.table({"data_source": ["math"]}), tmp_path / "rows.parquet")
    program = (
        "import sys; from cleaner.data.filter import main; "
        f"main(['--stats', {str(stats)!r}, '--dataset', {str(tmp_path / 'rows.parquet')!r}]); "
        "print([name for name in ('torch', 'pandas', 'verl', 'ray', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
