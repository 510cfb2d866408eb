"""Conversations: what fine-tuning sees is token for token what the agent loop builds with verl's token builder."""

import asyncio
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

from cleaner.coldstart.chat_format import (
    CHAT_TEMPLATE,
    TOOL_SCHEMA,
    TOOL_TOKENS,
    call_text,
    chat_template,
    parse_turn,
)
from cleaner.coldstart.encoding import encode, encode_prompt, render
from cleaner.coldstart.tokenizer import train_tokenizer
from cleaner.data.make_rows import SYSTEM_PROMPT

CODE = "import math\na = 84\nprint(math.gcd(a, 36), '\"\\\\n é')"
CONVERSATION = [
    {"role": "system", "content": SYSTEM_PROMPT},
    {"role": "user", "content": "Find the GCD.\n\nOf these numbers: 84, 36"},
    {"role": "assistant", "content": call_text("I use math.gcd.", CODE)},
    {"role": "tool", "content": "NameError: name 'math' is not defined (line 3)\nsecond line"},
    {"role": "assistant", "content": call_text("I fix the error.", "print(12)")},
    {"role": "tool", "content": "12"},
    {"role": "assistant", "content": "The answer is \\boxed{12}."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([json.dumps(CONVERSATION)] * 20, vocabulary=500, max_length=1024)


def built_by_verl(tokenizer, conversation, builder=None):
    """Token ids as the agent loop grows them: initial prompt, then assistant ids and tool messages in turn."""
    builder = builder or create_continuous_token_builder(tokenizer, hf_model_type="qwen2")
    done = 2
    ids = builder.build_initial_tokens(conversation[:done], tools=[TOOL_SCHEMA])
    while done < len(conversation):
        sampled = tokenizer.encode(conversation[done]["content"] + "<|im_end|>", add_special_tokens=False)
        ids = builder.merge_assistant_tokens(ids, sampled).token_ids
        if done + 1 < len(conversation):
            before, after = conversation[: done + 1], conversation[: done + 2]
            ids = builder.merge_context_tokens(before, after, ids, tools=[TOOL_SCHEMA]).token_ids
        done += 2
    return ids


def test_fine_tuning_sees_exactly_the_tokens_that_verl_builds(tokenizer):
    assert encode(tokenizer, CONVERSATION).ids == built_by_verl(tokenizer, CONVERSATION)


def test_it_is_also_the_rendering_of_the_whole_conversation(tokenizer):
    whole = tokenizer.encode(render(tokenizer, CONVERSATION), add_special_tokens=False)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    assert [*encode(tokenizer, CONVERSATION).ids, *newline] == whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=3, max_size=3))
def test_any_observation_and_any_question_keep_the_two_equal(texts):
    question, first, second = (text.replace("<", "(").replace("\r", " ") for text in texts)
    conversation = [dict(message) for message in CONVERSATION]
    conversation[1]["content"], conversation[3]["content"], conversation[5]["content"] = (
        question,
        first,
        second,
    )
    tokenizer = _shared_tokenizer()
    assert encode(tokenizer, conversation).ids == built_by_verl(tokenizer, conversation)


def _shared_tokenizer(cache=[]):  # noqa: B006 - one tokenizer for all examples
    if not cache:
        cache.append(train_tokenizer([json.dumps(CONVERSATION)] * 20, vocabulary=500, max_length=1024))
    return cache[0]


def test_the_mask_covers_the_assistants_tokens_and_nothing_else(tokenizer):
    example = encode(tokenizer, CONVERSATION)
    own = tokenizer.decode([i for i, m in zip(example.ids, example.mask, strict=True) if m])
    assert own == "".join(f"{m['content']}<|im_end|>" for m in CONVERSATION if m["role"] == "assistant")


def test_a_prompt_in_the_middle_of_a_conversation_is_a_prefix_of_the_whole(tokenizer):
    whole = encode(tokenizer, CONVERSATION).ids
    for turns in (2, 4, 6):
        prompt = encode_prompt(tokenizer, CONVERSATION[:turns])
        assert whole[: len(prompt)] == prompt


def test_structured_calls_and_their_text_render_alike(tokenizer):
    function = {"name": "code_interpreter", "arguments": {"code": CODE}}
    structured = {
        "role": "assistant",
        "content": "I use math.gcd.",
        "tool_calls": [{"id": "1", "type": "function", "function": function}],
    }
    as_text = render(tokenizer, CONVERSATION[:3])
    assert render(tokenizer, [*CONVERSATION[:2], structured]) == as_text
    function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    assert render(tokenizer, [*CONVERSATION[:2], structured]) == as_text


def test_the_template_follows_qwens_chatml(tokenizer):
    two_results = [*CONVERSATION[:4], {"role": "tool", "content": "b"}]
    text = render(tokenizer, two_results, prompt=True)
    assert text.startswith(
        f"<|im_start|>system\n{SYSTEM_PROMPT}\n<tools>\ncode_interpreter(code)\n</tools><|im_end|>\n"
    )
    assert text.endswith(
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n"
        + CONVERSATION[3]["content"]
        + "\n</tool_response>"
        "\n<tool_response>\nb\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    without_tools = tokenizer.apply_chat_template(CONVERSATION[1:2], tokenize=False)
    assert without_tools == f"<|im_start|>user\n{CONVERSATION[1]['content']}<|im_end|>\n"


def test_tags_newline_and_every_pair_of_digits_are_one_token(tokenizer):
    pieces = [*TOOL_TOKENS, "<|im_start|>", "<|im_end|>", "\n", *(f"{pair:02d}" for pair in range(100))]
    assert all(len(tokenizer.encode(piece, add_special_tokens=False)) == 1 for piece in pieces)


def test_decoding_without_special_tokens_keeps_the_tool_tags(tokenizer):
    ids = encode(tokenizer, CONVERSATION).ids
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<tool_response>\n12\n</tool_response>" in text
    assert "<|im_end|>" not in text


def test_verls_hermes_parser_reads_the_call(tokenizer):
    parser = ToolParser.get_tool_parser("hermes", tokenizer)
    ids = tokenizer.encode(CONVERSATION[2]["content"] + "<|im_end|>", add_special_tokens=False)
    _, calls = asyncio.run(parser.extract_tool_calls(ids))
    assert [call.name for call in calls] == ["code_interpreter"]
    assert json.loads(calls[0].arguments) == {"code": CODE}


def test_turns_are_read_as_call_fault_or_final_answer():
    assert parse_turn(call_text("", CODE)).code == CODE
    assert parse_turn("It is \\boxed{1}.").is_final
    for text in (
        "<tool_call>\n{}\n</tool_call>",
        '<tool_call>{"name": "x"',
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": "other", "arguments": {"code": "1"}}</tool_call>',
        '<tool_call>{"name": "code_interpreter", "arguments": {"code": 1}}</tool_call>',
        '<tool_call>{"name": "code_interpreter", "arguments": "code"}</tool_call>',
    ):
        turn = parse_turn(text)
        assert turn.fault is not None, text
        assert turn.code is None


def test_other_families_get_the_same_text_from_verls_generic_builder(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = chat_template(newline_first=True)
    builder = create_continuous_token_builder(other, hf_model_type="llama")
    ids = built_by_verl(other, CONVERSATION, builder)
    assert ids == encode(other, CONVERSATION).ids
    assert other.decode(ids) == render(tokenizer, CONVERSATION).removesuffix("\n")
    alone = CONVERSATION[1:3]
    text = other.apply_chat_template(alone, tokenize=False)
    assert text == tokenizer.apply_chat_template(alone, tokenize=False).removesuffix("\n")


def test_the_tokenizer_that_auto_tokenizer_loads_beside_a_qwen2_gives_the_same_tokens(tokenizer, tmp_path):
    """AutoTokenizer puts Qwen's splitting into words in place of the saved one; numbers must stay pairs of digits."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = json.dumps(CONVERSATION) + " 1 12 123 1234 12345, a12b345\n\n\t.\n)"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert encode(loaded, CONVERSATION) == encode(tokenizer, CONVERSATION)
    assert loaded.decode(loaded.encode(text)) == text
    assert [loaded.decode([i]) for i in loaded.encode("12345")] == ["12", "34", "5"]
    assert loaded.chat_template == CHAT_TEMPLATE
