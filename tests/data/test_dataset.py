"""verl builds our dataset from a run's configuration; filter, limit, order and tool are those of the run."""

import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.trainer.ppo.utils import create_rl_dataset

from cleaner.errors import ConfigError
from cleaner.evaluation.identity import row_id

ROOT = Path(__file__).parents[2]
TOOLS = str(ROOT / "recipe" / "cleaner" / "quickstart" / "tools.yaml")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "recipe" / "cleaner" / "quickstart" / "model")


@pytest.fixture
def build(tokenizer, monkeypatch):
    """What verl's trainer does with the group `data`."""
    monkeypatch.setenv("CODE_JUDGE_URL", "http://127.0.0.1:9")

    def dataset(*files, max_samples=-1, tool=None, **changes):
        config = OmegaConf.create(
            {
                "custom_cls": {"path": "pkg://cleaner.data.dataset", "name": "ProblemDataset"},
                "max_prompt_length": 4000,
                "filter_overlong_prompts": True,
                "filter_overlong_prompts_workers": 1,
                "tool_config_path": tool,
                "shuffle": False,
                "seed": 1,
                **changes,
            }
        )
        return create_rl_dataset(
            [str(file) for file in files], config, tokenizer, None, max_samples=max_samples
        )

    return dataset


def ids(dataset):
    return [row_id(dataset[number]) for number in range(len(dataset))]


def numbered(raw, count, long=()):
    """Contest problems with ids from 0; those in `long` have a long text."""
    return [
        raw["AIME2025"] | {"id": str(n), "problem": "Find it. " * (4000 if n in long else 1)}
        for n in range(count)
    ]


def test_files_of_different_kinds_make_one_dataset(raw, write, build):
    files = [write(raw[kind], name=f"{kind}.parquet") for kind in raw]
    dataset = build(*files)
    assert ids(dataset) == ["0", "0", "2024-II-4", "7", "0", "abc_387_a"]
    assert [row["data_source"] for row in dataset] == [row["data_source"] for row in raw.values()]
    for row in dataset:
        assert None not in row["extra_info"].values()
        assert row["tools_kwargs"] == {} and row["interaction_kwargs"] == {}


def test_the_environment_stays_the_one_that_others_hold(raw, write, build):
    environment = os.environ
    build(write(raw["AIME2024"]))
    assert os.environ is environment


def test_only_a_run_with_a_tool_tells_of_one(raw, write, build):
    path = write(raw["AIME2024"])
    assert "the tool" in build(path, tool=TOOLS)[0]["raw_prompt"][0]["content"]
    assert "the tool" not in build(path)[0]["raw_prompt"][0]["content"]


def test_a_tool_that_cannot_be_loaded_ends_the_run(raw, write, build, monkeypatch):
    monkeypatch.delenv("CODE_JUDGE_URL")
    with pytest.raises(ConfigError, match=r"the tool of .*tools.yaml cannot be loaded"):
        build(write(raw["AIME2024"]), tool=TOOLS)


def test_prompts_that_are_too_long_are_left_out_and_counted(raw, write, build, capsys):
    path = write(*numbered(raw, 6, long=(1, 4)))
    assert ids(build(path)) == ["0", "2", "3", "5"]
    assert "2 problems are longer than 4000 tokens and left out" in capsys.readouterr().out
    assert len(build(path, filter_overlong_prompts=False)) == 6


def test_the_schema_of_the_tool_counts(raw, write, build, tokenizer):
    path = write(*numbered(raw, 1))
    prompt = build(path, tool=TOOLS)[0]["raw_prompt"]
    length = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))
    with pytest.raises(
        ConfigError, match=r"no prompt of .* is usable with at most .*the tool's schema included"
    ):
        build(path, tool=TOOLS, max_prompt_length=length)
    assert len(build(path, max_prompt_length=length)) == 1


def test_a_limit_counts_rows_that_are_used(raw, write, build):
    path = write(*numbered(raw, 8, long=(0, 2)))
    assert ids(build(path, max_samples=4)) == ["1", "3", "4", "5"]
    assert len(build(path, max_samples=100)) == 6


def test_a_draw_follows_from_the_seed_and_a_smaller_one_is_part_of_a_larger(raw, write, build):
    path = write(*numbered(raw, 40))
    five, ten = (ids(build(path, max_samples=size, shuffle=True)) for size in (5, 10))
    assert ten[:5] == five
    assert ten != sorted(ten, key=int)
    assert ids(build(path, max_samples=10, shuffle=True)) == ten
    assert ids(build(path, max_samples=10, shuffle=True, seed=2)) != ten


def test_an_odd_row_ends_the_run_before_anything_else(raw, write, build):
    good, bad = write(raw["gpqa"]), write({**raw["gpqa"], "solution": "?"}, name="bad.parquet")
    with pytest.raises(ConfigError, match=r"bad.parquet: row 0, column 'solution'"):
        build(good, bad)


def test_a_dataset_restored_from_a_checkpoint_is_the_same(raw, write, build):
    dataset = build(write(*numbered(raw, 12)), shuffle=True, max_samples=6)
    before = ids(dataset)
    dataset.resume_dataset_state()
    assert ids(dataset) == before
