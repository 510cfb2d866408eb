"""The figures: one a question, only where there is data, readable files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cleaner.report.plots import write_plots
from cleaner.report.run_dir import RunDirectory


def test_every_figure_is_a_png_of_its_own(quick_run: Path) -> None:
    written = write_plots(RunDirectory.open(quick_run))
    assert [path.stem for path in written] == [
        *("accuracy", "first_attempt_success", "rollbacks", "repairs"),
        *("discarded_tokens", "response_length", "seconds"),
    ]
    for path in written:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG") and 5_000 < len(data) < 200_000
    assert len(list((quick_run / "plots").iterdir())) == len(written)


def test_a_quantity_without_data_gives_no_figure(write_run: Callable[..., Path], tmp_path: Path) -> None:
    assert write_plots(RunDirectory.open(write_run([]))) == []
    run = RunDirectory.open(write_run([(0, {"val/accuracy": 0.5})], name="one"))
    assert [path.name for path in write_plots(run, tmp_path / "elsewhere")] == ["accuracy.png"]


def test_drawing_leaves_pyplot_alone(quick_run: Path) -> None:
    import sys

    write_plots(RunDirectory.open(quick_run))
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
