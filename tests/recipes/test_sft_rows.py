"""Conversations for the cold start: what is wrong is named, and only what the model writes is trained."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorded_recipe import RECIPES

from cleaner.coldstart.chat_format import TOOL_SCHEMA
from cleaner.sft_rows import check_conversations

CALL = {"type": "function", "function": {"name": "code_interpreter", "arguments": {"code": "print(2 + 2)"}}}
GOOD: list[dict[str, Any]] = [
    {"role": "system", "content": "Use Python.", "tool_calls": None},
    {"role": "user", "content": "What is 2 + 2?", "tool_calls": None},
    {"role": "assistant", "content": "I add them.", "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_calls": None},
    {"role": "assistant", "content": "\\boxed{4}", "tool_calls": None},
]


def written(path: Path, *conversations: Any, column: str = "messages", tools: Any = (TOOL_SCHEMA,)) -> Path:
    rows = [{column: messages, "tools": list(tools)} for messages in conversations]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def problems(path: Path) -> str:
    return "\n".join(map(str, check_conversations(path, "data.train_files", "messages", "tools")))


def test_a_good_file_has_no_problem(tmp_path: Path) -> None:
    assert problems(written(tmp_path / "good.parquet", GOOD, GOOD)) == ""


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (GOOD[:2], "no message of an assistant"),
        ([], "must be a list of messages"),
        ([{**GOOD[0], "role": "sytem"}, *GOOD[1:]], "message 0 has the role 'sytem'"),
        ([*GOOD[:4], {**GOOD[4], "content": None}], "message 4 has neither content nor tool_calls"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, broken: Any, named: str) -> None:
    file = written(tmp_path / "broken.parquet", GOOD, broken)
    found = problems(file)
    assert str(file) in found and "row 1, column 'messages'" in found and named in found


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    assert "no column 'messages'" in problems(written(tmp_path / "a.parquet", GOOD, column="turns"))
    (tmp_path / "b.parquet").write_text("{}")
    assert "not a readable parquet file" in problems(tmp_path / "b.parquet")


def test_only_what_the_model_writes_is_trained(tmp_path: Path) -> None:
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    tokenizer = AutoTokenizer.from_pretrained(RECIPES / "quickstart" / "model")
    config = OmegaConf.create({"pad_mode": "no_padding", "max_length": 512, "truncation": "right"})
    file = written(tmp_path / "good.parquet", GOOD)
    row = MultiTurnSFTDataset(str(file), tokenizer, config)[0]
    trained = tokenizer.decode(row["input_ids"][row["loss_mask"].bool()])
    call = '<tool_call>\n{"name": "code_interpreter", "arguments": {"code": "print(2 + 2)"}}\n</tool_call>'
    # verl trains the line break after a turn too.
    assert trained == f"I add them.\n{call}<|im_end|>\n\\boxed{{4}}<|im_end|>\n"
