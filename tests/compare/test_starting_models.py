"""A comparison's runs start from one model, on whatever machine they are made."""

import os

import pytest

from cleaner.compare.archive import ARCHIVE, keep, restore
from cleaner.compare.rows_and_models import provide_model
from cleaner.compare.starting_models import MODELS, digest, keep_model, kept_model
from cleaner.compare.store import Store
from cleaner.errors import ConfigError


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a model's, of random weights."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(999))
    return folder


def test_a_kept_model_comes_back_as_it_was(model, tmp_path):
    results, cache = tmp_path / "results", tmp_path / "cache"
    assert kept_model("short", results, cache) is None
    keep_model("short", model, results)
    folder = kept_model("short", results, cache)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in model.iterdir()
    }
    assert digest(folder) == digest(model) and kept_model("short", results, cache) == folder


def test_the_first_model_stays(model, tmp_path):
    first = digest(model)
    keep_model("short", model, tmp_path)
    (model / "model.safetensors").write_bytes(b"another")
    keep_model("short", model, tmp_path)
    assert digest(kept_model("short", tmp_path, tmp_path / "cache")) == first != digest(model)


def test_whoever_goes_on_gets_the_kept_model_and_not_the_one_of_this_machine(model, plan_of, tmp_path):
    task, results = plan_of().tasks[0], tmp_path / "results"
    first = digest(provide_model(task, model, tmp_path / "cache", results, judge_url=""))
    (model / "model.safetensors").write_bytes(b"of another machine")
    assert digest(provide_model(task, model, tmp_path / "elsewhere", results, judge_url="")) == first


def test_runs_from_another_model_are_refused_with_a_way_out(plan_of, tmp_path):
    run = plan_of().runs[0]
    store = Store(tmp_path, {"short": "aaaa"})
    store.begin(run, ["train"])
    store.end(run, "finished", 1.0, 0)
    assert store.status(run) == Store(tmp_path).status(run) == "finished"
    with pytest.raises(
        ConfigError, match=r"model aaaa, and the one here is bbbb.*another OUTPUT_DIR and RUNS_DIR"
    ):
        Store(tmp_path, {"short": "bbbb"}).status(run)


def test_runs_that_do_not_say_their_model_are_refused_too(plan_of, tmp_path):
    run = plan_of().runs[0]
    Store(tmp_path).begin(run, ["train"])
    with pytest.raises(ConfigError, match="model unknown"):
        Store(tmp_path, {"short": "bbbb"}).status(run)


def test_an_archive_of_runs_says_their_model(plan_of, tmp_path):
    plan, store = plan_of(), Store(tmp_path / "one", {"short": "aaaa"})
    path = store.begin(plan.runs[0], ["train"])
    (path / "metrics.jsonl").write_text("{}\n")
    store.end(plan.runs[0], "finished", 1.0, 0)
    keep(plan, store, tmp_path / ARCHIVE)
    assert restore(plan, Store(tmp_path / "two"), tmp_path / ARCHIVE) == 1
    assert Store(tmp_path / "two", {"short": "aaaa"}).status(plan.runs[0]) == "finished"
    with pytest.raises(ConfigError, match="aaaa"):
        Store(tmp_path / "two", {"short": "bbbb"}).status(plan.runs[0])


def test_a_broken_archive_is_told_with_its_name(tmp_path):
    (tmp_path / MODELS).mkdir()
    (tmp_path / MODELS / "short.tar.xz").write_bytes(b"not a tar")
    with pytest.raises(ConfigError, match=r"short\.tar\.xz cannot be unpacked"):
        kept_model("short", tmp_path, tmp_path / "cache")


def test_a_model_too_large_for_a_repository_is_not_kept(model, tmp_path):
    with (model / "model.safetensors").open("r+b") as weights:
        weights.truncate(64 * 2**20 + 1)
    keep_model("short", model, tmp_path / "results")
    assert kept_model("short", tmp_path / "results", tmp_path / "cache") is None
