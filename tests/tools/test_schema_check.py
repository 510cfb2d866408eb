"""Arguments against the schemas that verl's tools can have."""

import pytest
from verl.tools.schemas import OpenAIFunctionToolSchema

from cleaner.tools.schema_check import schema_problem

SCHEMA = OpenAIFunctionToolSchema.model_validate(
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "count": {"type": "integer"},
                    "ratio": {"type": ["number", "null"]},
                    "kind": {"type": "string", "enum": ["a", "b"]},
                    "odd": {"type": "tensor"},
                },
                "required": ["text"],
            },
        },
    }
)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ({"text": ""}, None),
        ({"text": "x", "count": 2, "ratio": None, "kind": "a", "odd": object(), "more": 1}, None),
        ({"text": "x", "count": 2.0, "ratio": 1}, None),
        ([], "must be an object, got list"),
        ({}, "missing argument 'text'"),
        ({"text": 1}, "'text' must be string, got int"),
        ({"text": "x", "count": True}, "'count' must be integer, got bool"),
        ({"text": "x", "ratio": "1"}, "'ratio' must be number or null, got str"),
        ({"text": "x", "kind": "c"}, "'kind' must be one of 'a', 'b'"),
    ],
)
def test_schema_problem(arguments, problem):
    found = schema_problem(SCHEMA, arguments)
    assert found is None if problem is None else problem in found


def test_a_tool_without_a_schema_takes_any_object():
    assert schema_problem(None, {"x": 1}) is None
