"""Every kind of row becomes what verl wants, with a sentence about the tool exactly where one is offered."""

import json

import pytest
from published_statistics import PUBLISHED
from sample_rows import TALK, TESTS, WORKERS

from cleaner.data import instructions
from cleaner.data.mapping import RowFault, map_row
from cleaner.data.sources import category, is_code
from cleaner.evaluation.identity import row_id

KINDS = ["math_dapo", "code", "AIME2024", "AIME2025", "gpqa", "lcb"]


def prompt(row, tool):
    (message,) = map_row(row, 0, tool)["prompt"]
    assert message["role"] == "user"
    return message["content"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tool_is_spoken_of_only_where_one_is_offered(raw, kind):
    assert instructions.speaks_of_tool(prompt(raw[kind], tool=True))
    without = prompt(raw[kind], tool=False)
    assert not instructions.speaks_of_tool(without)
    assert "tool" not in without.replace(WORKERS, "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tool", [True, False])
def test_mapping_a_mapped_row_again_changes_nothing_it_says(raw, kind, tool):
    once = map_row(raw[kind], 3, tool)
    again = map_row(once, 3, tool)
    assert again["prompt"] == once["prompt"]
    assert again["reward_model"] == once["reward_model"]
    assert again["extra_info"]["uid"] == once["extra_info"]["uid"]


@pytest.mark.parametrize(
    ("kind", "form"),
    [("math_dapo", instructions.NO_UNITS), ("code", instructions.LAST_BLOCK), ("AIME2024", instructions.BOXED),
     ("AIME2025", instructions.BOXED), ("gpqa", instructions.LETTER), ("lcb", instructions.LAST_BLOCK)],
)  # fmt: skip
@pytest.mark.parametrize("tool", [True, False])
def test_the_prompt_says_once_what_form_the_answer_has(raw, kind, form, tool):
    text = prompt(raw[kind], tool)
    if kind == "math_dapo" and not tool:
        # The sentence that named the box spoke of the tool.
        form = instructions.BOXED
    assert text.count(form) == 1
    assert text.endswith(form)


def test_only_sentences_about_the_tool_are_taken_out():
    assert instructions.without_tool_talk(f"{WORKERS}\n\n{TALK}") == WORKERS
    assert instructions.without_tool_talk(WORKERS) == WORKERS
    text = "First, plan.  Use the tool to check x=2.5! Then answer?\nYes."
    assert instructions.without_tool_talk(text) == "First, plan.  Then answer?\nYes."


def test_a_program_is_told_from_a_function(raw):
    assert prompt(raw["lcb"], tool=True).startswith(instructions.STDIN_PROGRAM)
    truth = {"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]}
    row = {**raw["lcb"], "reward_model": json.dumps({"ground_truth": truth})}
    assert prompt(row, tool=True).startswith(instructions.FUNCTION)


def test_tests_are_never_shown_to_the_model(raw):
    mapped = map_row(raw["lcb"], 0, tool=True)
    assert json.loads(mapped["reward_model"]["ground_truth"]) == TESTS
    assert "3 4" not in mapped["prompt"][0]["content"]
    assert "tests" not in mapped["extra_info"]


@pytest.mark.parametrize(
    ("kind", "truth"), [("AIME2024", "33"), ("AIME2025", "70"), ("gpqa", "C"), ("math_dapo", "12")]
)
def test_answers_become_text(raw, kind, truth):
    assert map_row(raw[kind], 0, tool=False)["reward_model"] == {"style": "rule", "ground_truth": truth}


@pytest.mark.parametrize("written", ["C", "(C)", "\\boxed{C}", "C. c"])
def test_a_choice_may_be_written_in_several_ways(raw, written):
    row = {**raw["gpqa"], "solution": written}
    assert map_row(row, 0, tool=False)["reward_model"]["ground_truth"] == "C"


@pytest.mark.parametrize(
    ("kind", "uid"),
    [("math_dapo", "5"), ("code", "5"), ("AIME2024", "2024-II-4"), ("AIME2025", "7"), ("gpqa", "5"),
     ("lcb", "abc_387_a")],
)  # fmt: skip
def test_a_row_has_an_id_that_evaluations_write_down(raw, kind, uid):
    mapped = map_row(raw[kind], 5, tool=True)
    assert mapped["extra_info"]["uid"] == uid
    assert mapped["extra_info"]["index"] == 5
    # verl hands the row on with a uid of its own.
    assert row_id({**mapped, "uid": "drawn by verl"}) == uid


def test_an_id_of_the_row_wins_over_its_number(raw):
    assert map_row({**raw["code"], "uid": 812}, 5, tool=True)["extra_info"]["uid"] == "812"
    row = {**raw["code"], "uid": 812, "extra_info": {"uid": "t-9", "index": 3}}
    assert map_row(row, 5, tool=True)["extra_info"] == {"uid": "t-9", "index": 5, "source_index": "3"}


def test_rows_of_other_kinds_are_left_as_they_are():
    messages = [{"role": "system", "content": "Call the tools."}, {"role": "user", "content": "2 + 2"}]
    row = {"prompt": messages, "data_source": "reasoning_gym/sum", "reward_model": {"ground_truth": 4}}
    for tool in (True, False):
        mapped = map_row(row, 0, tool)
        assert mapped["prompt"] == messages
        assert mapped["reward_model"]["ground_truth"] == "4"


def test_a_row_without_a_source_is_told_by_its_columns(raw):
    for kind in ("AIME2024", "AIME2025", "gpqa", "lcb"):
        row = {key: value for key, value in raw[kind].items() if key != "data_source"}
        assert map_row(row, 0, tool=True) == map_row(raw[kind], 0, tool=True)


def test_content_of_parts_is_left_alone(raw):
    parts = [{"role": "user", "content": [{"type": "text", "text": "2 + 2"}]}]
    assert map_row({**raw["math_dapo"], "prompt": parts}, 0, tool=False)["prompt"] == parts


@pytest.mark.parametrize(
    ("kind", "change", "column", "message"),
    [
        ("math_dapo", {"prompt": "2+2"}, "prompt", "must be a list of chat messages, got str '2.2'"),
        ("math_dapo", {"prompt": []}, "prompt", "must not be an empty list"),
        ("math_dapo", {"reward_model": {"style": "rule"}}, "reward_model", "has no 'ground_truth'"),
        ("math_dapo", {"reward_model": None}, "reward_model", "is missing"),
        ("math_dapo", {"reward_model": "42"}, "reward_model", "must be an object"),
        ("math_dapo", {"reward_model": {"ground_truth": " "}}, "reward_model", "'ground_truth' is empty"),
        ("math_dapo", {"data_source": None}, "data_source", "must be non-empty text"),
        ("math_dapo", {"extra_info": 3}, "extra_info", "must be an object, got int 3"),
        ("AIME2024", {"Answer": None}, "Answer", "is missing .the row has: ID, Problem"),
        ("AIME2024", {"Problem": ""}, "Problem", "must be non-empty text"),
        ("AIME2025", {"answer": [70]}, "answer", "must be non-empty text, got list"),
        ("gpqa", {"solution": "5 nm"}, "solution", "must be the letter of a choice"),
        ("gpqa", {"domain": None}, "domain", "is missing"),
        ("lcb", {"reward_model": "{"}, "reward_model", "is text, but not JSON"),
        ("lcb", {"reward_model": '{"ground_truth": "7"}'}, "reward_model", "must hold tests"),
        ("lcb", {"extra_info": "null"}, "extra_info", "must be an object, got null"),
        ("lcb", {"question_id": None}, "question_id", "is missing"),
        ("AIME2025", {"data_source": "new", "answer": None}, "prompt", "none of the known forms"),
    ],
)
def test_an_odd_value_is_a_fault_of_its_column(raw, kind, change, column, message):
    with pytest.raises(RowFault, match=message) as caught:
        map_row({**raw[kind], **change}, 0, tool=True)
    assert caught.value.column == column


def test_the_published_sources_fall_into_the_published_categories():
    sizes = {"code": 0, "math": 0, "science": 0, "other": 0}
    for source, counts in PUBLISHED.items():
        sizes[category(source)] += sum(counts)
    assert sizes == {"code": 4310, "math": 22818, "science": 3000, "other": 0}
    assert is_code("LiveCodeBench_v6") and not is_code("gpqa_diamond")
    assert category("reasoning_gym/gcd") == "other"
