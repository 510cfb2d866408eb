"""From a row as the hub has it to a row as verl wants it; what becomes of it is decided by the row, never by its file.

Four forms besides verl's own (a row with `prompt`):

| `data_source` | columns |
|---|---|
| AIME2024 | `Problem`, `Answer` |
| AIME2025 | `problem`, `answer` |
| gpqa_diamond | `problem` (with its choices), `solution` (a letter), `domain` |
| LiveCodeBench_v6 | `problem`, `reward_model` and `extra_info` (JSON text), `question_id` |

A row without `data_source` is told by its columns. Tests are never shown to the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from cleaner.data import instructions, sources
from cleaner.data.schema import object_fault, prompt_fault, reward_model_fault, shown, text_fault
from cleaner.rewards.letters import letter_of

Row = Mapping[str, Any]


class RowFault(ValueError):
    """A row cannot be used. `column` is where, the message says why."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column = column


def map_row(row: Row, number: int, tool: bool) -> dict[str, Any]:
    """One row in verl's format.

    Args:
        row: as read from the file; nulls count as missing.
        number: its place in the file, from 0. It is the row's id where the row has none.
        tool: whether a tool is offered. Without one, the row's own sentences about using a tool are taken out.

    Returns:
        `prompt`, `data_source`, `ability`, `reward_model` (`style`, `ground_truth` as text, tests as JSON) and
        `extra_info`: `index` (the number), `uid` (the id), and what else the row's own held.

    Raises:
        RowFault: a value is missing or odd.
    """
    there = {key: value for key, value in row.items() if value is not None}
    form, default_source = _form_of(there)
    source = there.get("data_source", default_source)
    if fault := text_fault(source):
        raise RowFault("data_source", fault)
    messages, ability, truth, extra = form({**there, "data_source": source}, tool)
    original_index = extra.pop("index", number)
    if original_index != number:
        extra["source_index"] = str(original_index)
    return {
        "prompt": messages,
        "data_source": source,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {**extra, "index": number, "uid": _uid(there, extra, number)},
    }


def _uid(row: Row, extra: Row, number: int) -> str:
    """The order is that of `cleaner.data.row_ids`."""
    candidates = (row.get("question_id"), extra.get("uid"), row.get("uid"), row.get("ID"), row.get("id"))
    return str(next((value for value in candidates if value is not None and value != ""), number))


_Parts = tuple[list[dict[str, Any]], str, str, dict[str, Any]]  # messages, ability, ground truth, extra_info
_Form = Callable[[Row, bool], _Parts]


def _form_of(row: Row) -> tuple[_Form, str]:
    """What makes something of the row, and the source that such rows come from."""
    if "prompt" in row:
        return _ready, ""
    by_name = {source.lower(): (form, source) for form, source, _ in _FORMS}
    if named := by_name.get(str(row.get("data_source", "")).lower()):
        return named
    for form, source, columns in _FORMS:
        if columns <= row.keys():
            return form, source
    raise RowFault("prompt", f"is missing, and the row has none of the known forms (it has: {_keys(row)})")


def _ready(row: Row, tool: bool) -> _Parts:
    messages, source = row["prompt"], row["data_source"]
    if fault := prompt_fault(messages):
        raise RowFault("prompt", fault)
    # Parquet gives every message all keys that any message of the file has.
    messages = [
        {key: value for key, value in message.items() if value is not None or key == "content"}
        for message in messages
    ]
    reward_model = _object(row, "reward_model")
    if fault := reward_model_fault(reward_model):
        raise RowFault("reward_model", fault)
    truth = _truth(reward_model["ground_truth"], "reward_model")
    extra = _object(row, "extra_info") if "extra_info" in row else {}
    category = sources.category(source)
    # Rows of any other kind come with all that the model needs to know.
    if category != sources.OTHER:
        if not tool:
            messages = [_without_tool_talk(message) for message in messages]
        said = "\n".join(message["content"] for message in messages if isinstance(message["content"], str))
        if category == sources.CODE:
            sentences = instructions.code_sentences(said, tool)
        else:
            choice = "gpqa" in source.lower()
            sentences = instructions.answer_sentences(said, tool, choice)
        messages = instructions.instructed(messages, sentences)
    return messages, str(row.get("ability", category)), truth, extra


def _without_tool_talk(message: dict[str, Any]) -> dict[str, Any]:
    content = message["content"]
    if not isinstance(content, str) or message["role"] not in ("system", "user"):
        return message
    return {**message, "content": instructions.without_tool_talk(content)}


def _contest(problem: str, answer: str) -> _Form:
    def form(row: Row, tool: bool) -> _Parts:
        text = f"{instructions.STEP_BY_STEP}\n\n{_text(row, problem)}"
        return _asked(text, instructions.answer_sentences("", tool)), sources.MATH, _answer(row, answer), {}

    return form


def _choice(row: Row, tool: bool) -> _Parts:
    text = f"{instructions.STEP_BY_STEP}\n\n{_text(row, 'problem')}"
    letter = letter_of(_answer(row, "solution"))
    if letter is None:
        raise RowFault("solution", f"must be the letter of a choice, got {shown(row['solution'])}")
    domain = _text(row, "domain")
    return _asked(text, instructions.answer_sentences("", tool, choice=True)), domain, letter, {}


def _livecodebench(row: Row, tool: bool) -> _Parts:
    problem = _text(row, "problem")
    _answer(row, "question_id")
    reward_model, extra = _object(row, "reward_model"), _object(row, "extra_info")
    if fault := reward_model_fault(reward_model):
        raise RowFault("reward_model", fault)
    truth = _truth(reward_model["ground_truth"], "reward_model")
    if not truth.lstrip().startswith(("{", "[")):
        raise RowFault("reward_model", f"'ground_truth' must hold tests, got {shown(truth)}")
    function = '"fn_name"' in truth or '"functional"' in truth
    begin = instructions.FUNCTION if function else instructions.STDIN_PROGRAM
    messages = _asked(f"{begin}\n\n{problem}", instructions.code_sentences("", tool))
    # The source's own fields may hold the tests a second time: only plain values are kept.
    kept = {key: value for key, value in extra.items() if isinstance(value, str | int | float | bool)}
    return messages, str(row.get("ability", sources.CODE)), truth, kept


_FORMS: tuple[tuple[_Form, str, frozenset[str]], ...] = (
    (_contest("Problem", "Answer"), "AIME2024", frozenset(("Problem", "Answer"))),
    (_contest("problem", "answer"), "AIME2025", frozenset(("problem", "answer"))),
    (_choice, "gpqa_diamond", frozenset(("problem", "solution", "domain"))),
    (_livecodebench, "LiveCodeBench_v6", frozenset(("problem", "reward_model", "question_id"))),
)


def _asked(text: str, sentences: list[str]) -> list[dict[str, Any]]:
    return instructions.instructed([{"role": "user", "content": text}], sentences)


def _text(row: Row, column: str) -> str:
    if column not in row:
        raise RowFault(column, f"is missing (the row has: {_keys(row)})")
    if fault := text_fault(row[column]):
        raise RowFault(column, fault)
    return str(row[column]).strip()


def _answer(row: Row, column: str) -> str:
    """A value that may be text or a number, as text: AIME 2024's answers are whole numbers."""
    value = row.get(column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    return _text(row, column)


def _object(row: Row, column: str) -> dict[str, Any]:
    """A column that holds an object, or its JSON text; keys without a value are left out."""
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowFault(column, f"is text, but not JSON ({error}): {shown(row[column])}") from error
    if value is None and column not in row:
        raise RowFault(column, f"is missing (the row has: {_keys(row)})")
    if value is None:
        raise RowFault(column, "must be an object, got null")
    if fault := object_fault(value):
        raise RowFault(column, fault)
    return {key: item for key, item in value.items() if item is not None}


def _truth(value: Any, column: str) -> str:
    """A ground truth as text, so that rows of all kinds share a schema."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if item is not None}
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = str(value)
    if not text.strip():
        raise RowFault(column, "'ground_truth' is empty")
    return text


def _keys(row: Row) -> str:
    return ", ".join(row) or "nothing"
