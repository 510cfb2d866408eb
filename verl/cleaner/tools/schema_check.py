"""Whether a call's arguments fit the tool's schema (the part of JSON schema that verl's tool schemas can express)."""

from collections.abc import Callable
from typing import Any

_TYPE_CHECKS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}


def schema_problem(tool_schema: Any, arguments: Any) -> str | None:
    """What is wrong with `arguments`, None if nothing is. Arguments that the schema does not name are allowed.

    Args:
        tool_schema: verl's `OpenAIFunctionToolSchema`; anything without `function.parameters` is not checked.
        arguments: parsed JSON.
    """
    if not isinstance(arguments, dict):
        return f"arguments must be an object, got {type(arguments).__name__}"
    parameters = getattr(getattr(tool_schema, "function", None), "parameters", None)
    required = getattr(parameters, "required", None)
    for name in required if isinstance(required, list) else ():
        if name not in arguments:
            return f"missing argument {name!r}"
    properties = getattr(parameters, "properties", None)
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        if name in arguments and (problem := _value_problem(schema, arguments[name])):
            return f"argument {name!r} {problem}"
    return None


def _value_problem(schema: Any, value: Any) -> str | None:
    types = [schema.type] if isinstance(schema.type, str) else list(schema.type)
    checks = [_TYPE_CHECKS[name] for name in types if name in _TYPE_CHECKS]
    if len(checks) == len(types) and not any(check(value) for check in checks):
        return f"must be {' or '.join(types)}, got {type(value).__name__}"
    if schema.enum is not None and value not in schema.enum:
        return f"must be one of {', '.join(map(repr, schema.enum))}"
    return None
