"""The file that `cleaner report` writes: whole, small, closed, and the same for the same run."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.cli import main
from cleaner.report.page_file import json_for_page, write_page
from cleaner.report.run_dir import RunDirectory

ROOT = Path(__file__).parents[2]


class Elements(html.parser.HTMLParser):
    """Start tags with their attributes, and the text of each script and style."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside in self.texts:
            self.texts[self.inside][-1] += data


def parsed(file: Path) -> Elements:
    elements = Elements()
    elements.feed(file.read_text(encoding="utf-8"))
    return elements


@given(st.text() | st.lists(st.text(alphabet="</script><!--&\u2028\u2029\"'\\")))
def test_json_in_the_page_means_the_same_and_cannot_end_its_element(value: Any) -> None:
    text = json_for_page(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError):
        json_for_page(float("nan"))


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(report_run: Path) -> None:
    elements = parsed(write_page([RunDirectory.open(report_run)]))
    policy = next(
        attributes["content"]
        for tag, attributes in elements.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None

    def sha(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    (style,), (_, script) = elements.texts["style"], elements.texts["script"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'{sha(script)}'" and rules["style-src"] == f"'{sha(style)}'"
    assert "unsafe" not in policy and "http:" not in policy and "*" not in policy


def test_nothing_in_the_page_names_another_place(report_run: Path) -> None:
    elements = parsed(write_page([RunDirectory.open(report_run)]))
    links = [
        value
        for _, attributes in elements.tags
        for name, value in attributes.items()
        if name in ("src", "href")
    ]
    assert sorted(map(str, links)) == ["#trajectories", "data:,"]
    code = elements.texts["script"][1] + elements.texts["style"][0]
    assert set(re.findall(r"https?://[^'\"\s]+", code)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|url\(|@import", code)


def test_equal_runs_give_equal_files(report_run: Path, tmp_path: Path) -> None:
    run = RunDirectory.open(report_run)
    first, second = (write_page([run], tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_a_large_run_is_sampled_to_the_room_and_says_so(
    write_run: Callable[..., Path], records: Any, tmp_path: Path
) -> None:
    lines = [
        {**records.trajectory(step, repairs=[records.repair("shallow", 0.8)]), "prompt": f"{step} " * 200}
        for step in range(1500)
    ]
    run = RunDirectory.open(write_run([(1, {"accuracy": 0.5})], lines))
    file = write_page([run], tmp_path / "out.html", room=500_000)
    assert 300_000 < file.stat().st_size < 600_000
    (strata,) = json.loads(parsed(file).texts["script"][0])["strata"]
    assert strata["recorded"] == 1500 and 0 < strata["shown"] < 1500


def test_a_run_that_has_only_started_and_a_damaged_one_still_give_a_page(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    started, damaged = write_run([], name="started"), write_run([(1, {"accuracy": 1.0})], [], "damaged")
    (damaged / "trajectories.jsonl").write_bytes(b'{"step": 1}\n{broken\n[1]\n\xff\xfe\n{"step": 2, "half')
    file = write_page([RunDirectory.open(started), RunDirectory.open(damaged)], tmp_path / "out.html")
    data = json.loads(parsed(file).texts["script"][0])
    assert len(data["trajectories"]) == 1
    assert "3 line(s)" in data["runs"][1]["warnings"][0]


def test_the_command_writes_beside_the_run_or_where_it_is_told(
    report_run: Path, two_arms: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(report_run)]) == 0
    assert (report_run / "report.html").is_file() and "report.html" in capsys.readouterr().out
    out = tmp_path / "both.html"
    arguments = [
        "report",
        *map(str, two_arms),
        "-o",
        str(out),
        "--name",
        "one",
        "--name",
        "two",
        "--name",
        "three",
    ]
    assert main(arguments) == 0
    assert [run["name"] for run in json.loads(parsed(out).texts["script"][0])["runs"]] == [
        "one",
        "two",
        "three",
    ]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{tmp}"], "not a run directory"),
        (["{run}", "-o", "{tmp}/no/such/report.html"], "there is no folder"),
        (["{run}", "-o", "{tmp}"], "is a folder"),
        (["{run}", "--name", "a", "--name", "b"], "--name once for each run"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(
    arguments: list[str], said: str, report_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["report", *(text.format(tmp=empty, run=report_run) for text in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error


def test_the_command_imports_neither_torch_nor_verl_nor_numpy(report_run: Path) -> None:
    program = (
        "import sys; from cleaner.cli import main; status = main(sys.argv[1:]);"
        "print(sorted({'torch', 'verl', 'ray', 'numpy', 'matplotlib', 'transformers'} & set(sys.modules)), status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "report", str(report_run)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


def test_the_page_is_part_of_the_package() -> None:
    settings = (ROOT / "verl" / "pyproject.toml").read_text()
    assert re.search(r'"cleaner\.report" = \["page/\*"\]', settings)
