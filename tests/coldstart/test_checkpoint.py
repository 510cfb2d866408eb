"""The checkpoint in the tree: small, loadable by verl's parts, and able to do what the quick start needs of it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from cleaner.coldstart.chat_format import CHAT_TEMPLATE, TOOL_SCHEMA, parse_turn
from cleaner.coldstart.encoding import encode_prompt
from cleaner.coldstart.episodes import Episode, play, statistics
from cleaner.coldstart.sampler import ModelPolicy
from cleaner.data.tasks import TASKS, draw

FOLDER = Path(__file__).parents[2] / "recipe/cleaner/quickstart/model"
# None of these seeds' problems were drawn for training (seed 0) or for the stored evaluation (seed 1).
PROBLEMS = draw(list(TASKS.values()), 48, seed=77)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


def test_it_is_whole_and_at_most_3_megabytes():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "coldstart.json"} <= {
        path.name for path in files
    }


def test_vocabulary_special_tokens_and_template_fit(model, tokenizer):
    assert model.config.model_type == "qwen2"
    assert len(tokenizer) == model.config.vocab_size == model.get_input_embeddings().num_embeddings
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id == end
    assert tokenizer.pad_token_id == model.config.pad_token_id == pad
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert len(tokenizer.encode("<tool_call>", add_special_tokens=False)) == 1


def test_prompts_are_short_and_verl_builds_the_same_tokens(model, tokenizer):
    builder = create_continuous_token_builder(tokenizer, hf_model_type=model.config.model_type)
    for problem in PROBLEMS:
        messages = Episode(problem).messages
        ids = encode_prompt(tokenizer, messages)
        assert ids == builder.build_initial_tokens(messages, tools=[TOOL_SCHEMA])
        assert len(ids) <= 160


def test_it_calls_the_tool_fails_repairs_and_answers_under_real_execution(model, tokenizer, execute):
    """Loose bounds: 48 problems say little more than that it works (coldstart.json has the measurement)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        episodes = play(ModelPolicy(model, tokenizer, seed=5), PROBLEMS, execute)
    finally:
        torch.set_num_threads(threads)
    seen = statistics(episodes)
    assert seen["valid_format"] > 0.85
    assert seen["used_tool"] > 0.8
    assert seen["answered"] > 0.8
    assert 0.3 < seen["first_call_failure"] < 0.8
    assert 0.2 < seen["repair_rate"] < 0.8
    assert seen["accuracy"] > 0.2
    first = next(e for e in episodes if e.calls)
    assert parse_turn(first.messages[2]["content"]).code


def test_the_stored_measurement_is_within_the_intended_range():
    report = json.loads((FOLDER / "coldstart.json").read_text())
    seen = report["evaluation"]
    assert seen["episodes"] >= 200
    assert 0.4 <= seen["first_call_failure"] <= 0.7
    assert 0.35 <= seen["repair_rate"] <= 0.65
    assert 0.4 <= seen["accuracy"] <= 0.75
    assert seen["valid_format"] >= 0.95
