"""The look-up tool: what it answers, and how it fails."""

import asyncio
import json
import types
from itertools import pairwise
from pathlib import Path

import pytest
from verl.tools.schemas import OpenAIFunctionToolSchema
from verl.tools.tool_registry import initialize_tools_from_config

import cleaner.tools
from cleaner.errors import ConfigError
from cleaner.tools.lookup import TABLES, Lookup


def look_up(parameters, agent_data=None, tool=None, **config):
    tool = tool or Lookup(config)

    async def call():
        instance, _ = await tool.create()
        try:
            return await tool.execute(instance, parameters, agent_data=agent_data)
        finally:
            await tool.release(instance)

    response, reward, metrics = asyncio.run(call())
    assert reward == 0.0 and metrics["outcome"].text == response.text
    return metrics["outcome"]


def rows(resource, **parameters):
    outcome = look_up({"resource": resource, **parameters})
    assert outcome.ok and outcome.exception is None
    return [] if outcome.text == "no rows" else [json.loads(line) for line in outcome.text.splitlines()]


def test_a_resource_gives_its_rows_in_order_with_all_fields():
    assert rows("planets")[2] == {
        "position": 3,
        "name": "Earth",
        "radius_km": 6371.0,
        "mass_1e24_kg": 5.97,
        "period_days": 365.2,
    }
    assert [row["symbol"] for row in rows("elements")][:4] == ["H", "He", "Li", "Be"]


@pytest.mark.parametrize(
    "filters, names",
    [
        ({"symbol": "na"}, ["sodium"]),
        ({"atomic_number": 8.0}, ["oxygen"]),
        ({"mass": {"min": 39}}, ["argon", "potassium", "calcium"]),
        ({"mass": {"min": 39, "max": 39.95}}, ["argon", "potassium"]),
        ({"mass": {"max": 4.0026}}, ["hydrogen", "helium"]),
        ({"mass": {"min": 39}, "symbol": "K"}, ["potassium"]),
        ({"mass": {}, "symbol": "K"}, ["potassium"]),
        ({"symbol": "Xx"}, []),
        ({"mass": {"min": 20, "max": 10}}, []),
    ],
)
def test_all_filters_must_fit(filters, names):
    found = rows("elements", filters=filters, fields=["name"])
    assert found == [{"name": name} for name in names]


def test_no_rows_is_an_answer():
    outcome = look_up({"resource": "elements", "filters": {"name": "iron"}})
    assert (outcome.status, outcome.text) == ("ok", "no rows")


def test_fields_are_returned_in_the_order_asked_for():
    outcome = look_up({"resource": "countries", "filters": {"code": "BR"}, "fields": ["capital", "code"]})
    assert outcome.text == '{"capital": "Brasília", "code": "BR"}'


def test_a_limit_says_how_many_rows_there_are():
    lines = look_up({"resource": "planets", "fields": ["name"], "limit": 2}).text.splitlines()
    assert lines == ['{"name": "Mercury"}', '{"name": "Venus"}', "(2 of 8 rows)"]
    assert look_up({"resource": "planets", "limit": 8.0}).text.count("\n") == 7
    assert look_up({"resource": "elements"}, max_rows=3).text.endswith("(3 of 20 rows)")


@pytest.mark.parametrize(
    "parameters, exception, message",
    [
        ({"resource": "element"}, "UnknownResource", "no resource 'element'; valid: countries, elements, planets"),
        ({"resource": "planets", "fields": ["name", "weight"]}, "UnknownField", "planets has no field 'weight'; valid"),
        ({"resource": "countries", "filters": {"iso": "FR"}}, "UnknownField", "'iso'; valid: code, name, capital"),
        ({"resource": "\ud800"}, "UnknownResource", "no resource '\\ud800'"),
    ],
)  # fmt: skip
def test_unknown_names_are_errors_of_the_call_that_name_the_valid_ones(parameters, exception, message):
    outcome = look_up(parameters)
    assert (outcome.status, outcome.exception, outcome.label) == ("program_error", exception, exception)
    assert outcome.text.startswith(f"{exception}: ") and message in outcome.text


@pytest.mark.parametrize(
    "parameters, problem",
    [
        ({}, "missing argument 'resource'"),
        (["elements"], "arguments must be an object"),
        ({"resource": 1}, "argument 'resource' must be string"),
        ({"resource": "elements", "filter": {}}, "unknown argument 'filter'; valid: resource, filters, fields, limit"),
        ({"resource": "elements", "filters": "mass > 3"}, "argument 'filters' must be object"),
        ({"resource": "elements", "filters": {"mass": "heavy"}}, "filter 'mass' must be a number or {\"min\""),
        ({"resource": "elements", "filters": {"mass": True}}, "got bool"),
        ({"resource": "elements", "filters": {"mass": {"least": 1}}}, "unknown bound 'least'; valid: min, max"),
        ({"resource": "elements", "filters": {"mass": {"min": None}}}, "min of filter 'mass' must be a number, got"),
        ({"resource": "elements", "filters": {"name": 3}}, "filter 'name' must be a string, got int"),
        ({"resource": "elements", "fields": "name"}, "argument 'fields' must be array"),
        ({"resource": "elements", "fields": [["name"]]}, "must hold names of fields, got list"),
        ({"resource": "elements", "limit": 0}, "'limit' must be from 1 to 20, got 0"),
        ({"resource": "elements", "limit": 21}, "from 1 to 20"),
        ({"resource": "elements", "limit": "5"}, "argument 'limit' must be integer, got str"),
    ],
)  # fmt: skip
def test_arguments_of_a_wrong_form_are_format_errors(parameters, problem):
    outcome = look_up(parameters)
    assert (outcome.status, outcome.exception) == ("format_error", None)
    assert outcome.text.startswith("Invalid arguments for 'lookup': ") and problem in outcome.text


def test_another_schema_changes_what_the_model_is_shown_but_not_what_is_checked():
    schema = OpenAIFunctionToolSchema.model_validate(
        {
            "type": "function",
            "function": {
                "name": "facts",
                "description": "d",
                "parameters": {
                    "type": "object",
                    "properties": {"resource": {"type": "string", "enum": ["planets"]}},
                },
            },
        }
    )
    tool = Lookup({}, schema)
    assert look_up({"resource": "planets", "limit": 1}, tool=tool).ok
    for wrong in ({}, {"resource": "elements"}, {"resource": "planets", "filters": []}):
        outcome = look_up(wrong, tool=tool)
        assert outcome.status == "format_error" and "for 'facts'" in outcome.text


def test_long_answers_keep_head_and_tail():
    text = look_up({"resource": "elements"}, max_observation_tokens=40).text
    assert text.startswith('{"atomic_number": 1') and text.endswith('"mass": 40.078}') and "omitted" in text
    tokenizer = types.SimpleNamespace(
        encode=lambda text, add_special_tokens: text.split(" "), decode=lambda tokens: " ".join(tokens)
    )
    agent_data = types.SimpleNamespace(tokenizer=tokenizer)
    assert "tokens omitted" in look_up({"resource": "elements"}, agent_data, max_observation_tokens=40).text


def test_the_tables_hold_what_their_fields_say():
    assert sorted(TABLES) == ["countries", "elements", "planets"]
    for table in TABLES.values():
        assert len(set(table.fields)) == len(table.fields)
        for row in table.rows:
            assert len(row) == len(table.fields)
            kinds = [isinstance(value, str) for value in row]
            assert kinds == [table.is_text(field) for field in table.fields]
        assert len(set(table.rows)) == len(table.rows)
    assert [row[0] for row in TABLES["elements"].rows] == list(range(1, 21))
    masses = [row[3] for row in TABLES["elements"].rows]
    assert [a for a, b in pairwise(masses) if a >= b] == [39.95]  # argon before potassium
    periods = [row[4] for row in TABLES["planets"].rows]
    assert periods == sorted(periods)


def test_the_shipped_configuration_loads():
    path = Path(cleaner.tools.__file__).parent / "lookup.yaml"
    (tool,) = initialize_tools_from_config(path)
    assert isinstance(tool, Lookup) and tool.name == "lookup"
    assert tool.tool_schema == Lookup().tool_schema
    assert look_up({"resource": "planets", "limit": 1}, tool=tool).ok


@pytest.mark.parametrize(
    "config, word",
    [
        ({"rows": 3}, "unknown key 'rows'.*max_rows"),
        ({"max_rows": 0}, ">= 1"),
        ({"max_rows": True}, ">= 1"),
        ({"max_observation_tokens": 3}, ">= 16"),
    ],
)
def test_bad_configuration_is_refused(config, word):
    with pytest.raises(ConfigError, match=word):
        Lookup(config)
