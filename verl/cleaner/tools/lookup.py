"""The tool `lookup(resource, filters, fields, limit)`: reads a table, as a call of a REST service would.

An example of a tool that runs no code and takes structured arguments. Its tables are small, built in, and true, so that
answers can be checked. Give it the similarity metric `json`: `cleaner.saar.similarity_by_tool.lookup=json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from cleaner.errors import ConfigError
from cleaner.saar.outcome import FORMAT_ERROR, OK, PROGRAM_ERROR, ToolOutcome
from cleaner.tools.observation import truncate
from cleaner.tools.outcomes import OUTCOME_KEY
from cleaner.tools.schema_check import schema_problem

NO_ROWS = "no rows"
UNKNOWN_RESOURCE = "UnknownResource"
UNKNOWN_FIELD = "UnknownField"

_KEYS = ("max_rows", "max_observation_tokens", "type")
_BOUNDS = ("min", "max")


@dataclass(frozen=True)
class Table:
    """Rows under named fields. A field holds text in all rows, or numbers in all rows."""

    fields: tuple[str, ...]
    rows: tuple[tuple[str | int | float, ...], ...]

    def is_text(self, field: str) -> bool:
        return isinstance(self.rows[0][self.fields.index(field)], str)


TABLES: Mapping[str, Table] = {
    # Mass: standard atomic weight, abridged (IUPAC 2021).
    "elements": Table(
        ("atomic_number", "symbol", "name", "mass"),
        (
            (1, "H", "hydrogen", 1.008), (2, "He", "helium", 4.0026), (3, "Li", "lithium", 6.94),
            (4, "Be", "beryllium", 9.0122), (5, "B", "boron", 10.81), (6, "C", "carbon", 12.011),
            (7, "N", "nitrogen", 14.007), (8, "O", "oxygen", 15.999), (9, "F", "fluorine", 18.998),
            (10, "Ne", "neon", 20.18), (11, "Na", "sodium", 22.99), (12, "Mg", "magnesium", 24.305),
            (13, "Al", "aluminium", 26.982), (14, "Si", "silicon", 28.085), (15, "P", "phosphorus", 30.974),
            (16, "S", "sulfur", 32.06), (17, "Cl", "chlorine", 35.45), (18, "Ar", "argon", 39.95),
            (19, "K", "potassium", 39.098), (20, "Ca", "calcium", 40.078),
        ),
    ),
    # Position from the Sun; mean radius in km; mass in 10^24 kg; sidereal orbital period in days (NASA's fact sheets).
    "planets": Table(
        ("position", "name", "radius_km", "mass_1e24_kg", "period_days"),
        (
            (1, "Mercury", 2439.7, 0.33, 88.0), (2, "Venus", 6051.8, 4.87, 224.7),
            (3, "Earth", 6371.0, 5.97, 365.2), (4, "Mars", 3389.5, 0.642, 687.0),
            (5, "Jupiter", 69911, 1898, 4331), (6, "Saturn", 58232, 568, 10747),
            (7, "Uranus", 25362, 86.8, 30589), (8, "Neptune", 24622, 102, 59800),
        ),
    ),
    # Codes: ISO 3166-1 alpha-2.
    "countries": Table(
        ("code", "name", "capital", "continent"),
        (
            ("AU", "Australia", "Canberra", "Oceania"), ("BR", "Brazil", "Brasília", "South America"),
            ("CA", "Canada", "Ottawa", "North America"), ("DE", "Germany", "Berlin", "Europe"),
            ("EG", "Egypt", "Cairo", "Africa"), ("ES", "Spain", "Madrid", "Europe"),
            ("FR", "France", "Paris", "Europe"), ("IN", "India", "New Delhi", "Asia"),
            ("IT", "Italy", "Rome", "Europe"), ("JP", "Japan", "Tokyo", "Asia"),
            ("KE", "Kenya", "Nairobi", "Africa"), ("MX", "Mexico", "Mexico City", "North America"),
            ("NZ", "New Zealand", "Wellington", "Oceania"), ("PE", "Peru", "Lima", "South America"),
        ),
    ),
}  # fmt: skip


def default_schema() -> OpenAIFunctionToolSchema:
    """The schema that the model is shown where the tool's configuration has none.

    The names of the fields are not in it: the tool says which there are when one is wrong.
    """
    properties = {
        "resource": {"type": "string", "description": "What to look up: elements, planets or countries"},
        "filters": {
            "type": "object",
            "description": 'Conditions by field: a value, or for numbers {"min": ..., "max": ...}',
        },
        "fields": {"type": "array", "description": "Names of the fields to return; default: all"},
        "limit": {"type": "integer", "description": "Most rows to return"},
    }
    return OpenAIFunctionToolSchema.model_validate(
        {
            "type": "function",
            "function": {
                "name": "lookup",
                "description": "Look up facts in a table: chemical elements, planets, countries.",
                "parameters": {"type": "object", "properties": properties, "required": ["resource"]},
            },
        }
    )


class LookupFailure(Exception):
    """A call that cannot be answered: what became of it, and what the model is told."""

    def __init__(self, status: str, exception: str | None, message: str) -> None:
        super().__init__(message)
        self.outcome = ToolOutcome(status, exception, f"{exception}: {message}" if exception else message)


class Lookup(BaseTool):
    """Stateless; answers one JSON object a line, in the order of the table.

    A resource or field that does not exist is a `program_error`, `UnknownResource` or `UnknownField`, whose message
    names those that do; arguments of a wrong form are a `format_error`. That nothing fits the filters is an answer:
    "no rows".

    Configuration (the tool's `config` in the file of `multi_turn.tool_config_path`):
        max_rows: most rows in an answer, and the default of `limit` (20).
        max_observation_tokens: longer output keeps its head and its tail (512).

    `execute` returns the text, reward 0.0, and {"outcome": ToolOutcome}.

    Raises:
        ConfigError: an unknown key or bad value.
    """

    def __init__(
        self, config: dict[str, Any] | None = None, tool_schema: OpenAIFunctionToolSchema | None = None
    ) -> None:
        config = config or {}
        self._own_schema = default_schema()
        super().__init__(config, tool_schema or self._own_schema)
        for key in config:
            if key not in _KEYS:
                raise ConfigError(
                    f"unknown key {key!r} in the configuration of {self.name}; valid: {', '.join(_KEYS)}."
                )
        self._max_rows = _integer(config, "max_rows", default=20, least=1)
        self._max_tokens = _integer(config, "max_observation_tokens", default=512, least=16)

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Answer a call; never raises for what its arguments are."""
        try:
            outcome = ToolOutcome(OK, text=self._answer(parameters))
        except LookupFailure as failure:
            outcome = failure.outcome
        tokenizer = getattr(kwargs.get("agent_data"), "tokenizer", None)
        text = truncate(outcome.text, self._max_tokens, tokenizer)
        outcome = ToolOutcome(outcome.status, outcome.exception, text)
        return ToolResponse(text=text), 0.0, {OUTCOME_KEY: outcome}

    def _answer(self, parameters: dict[str, Any]) -> str:
        # The schema that the model is shown may be another one, but not what this tool can read.
        for schema in (self.tool_schema, self._own_schema):
            if (problem := schema_problem(schema, parameters)) is not None:
                raise self._invalid(problem)
        known = self._own_schema.function.parameters.properties
        for name in parameters:
            if name not in known:
                raise self._invalid(f"unknown argument {name!r}; valid: {', '.join(known)}")
        resource = parameters["resource"]
        if resource not in TABLES:
            raise _unknown(UNKNOWN_RESOURCE, f"no resource {resource!r}", sorted(TABLES))
        table = TABLES[resource]
        wanted = parameters.get("fields") or table.fields
        for field in wanted:
            if not isinstance(field, str):
                raise self._invalid(f"argument 'fields' must hold names of fields, got {_kind(field)}")
            self._check_field(table, resource, field)
        rows = self._matching(table, resource, parameters.get("filters", {}))
        limit = parameters.get("limit", self._max_rows)
        if not 1 <= limit <= self._max_rows:
            raise self._invalid(f"argument 'limit' must be from 1 to {self._max_rows}, got {limit}")
        lines = [json.dumps({field: row[field] for field in wanted}, ensure_ascii=False) for row in rows]
        shown = lines[: int(limit)]
        if len(shown) < len(lines):
            shown.append(f"({len(shown)} of {len(lines)} rows)")
        return "\n".join(shown) or NO_ROWS

    def _matching(self, table: Table, resource: str, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = [dict(zip(table.fields, row, strict=True)) for row in table.rows]
        for field, condition in filters.items():
            self._check_field(table, resource, field)
            self._check_condition(table, field, condition)
            rows = [row for row in rows if _fits(row[field], condition)]
        return rows

    def _check_field(self, table: Table, resource: str, field: str) -> None:
        if field not in table.fields:
            raise _unknown(UNKNOWN_FIELD, f"{resource} has no field {field!r}", table.fields)

    def _check_condition(self, table: Table, field: str, condition: Any) -> None:
        """A text for a field of texts; a number, or an object of bounds, for a field of numbers."""
        if table.is_text(field):
            if not isinstance(condition, str):
                raise self._invalid(f"filter {field!r} must be a string, got {_kind(condition)}")
            return
        if isinstance(condition, dict):
            for bound, value in condition.items():
                if bound not in _BOUNDS:
                    raise self._invalid(f"filter {field!r} has an unknown bound {bound!r}; valid: min, max")
                if not _is_number(value):
                    raise self._invalid(f"{bound} of filter {field!r} must be a number, got {_kind(value)}")
        elif not _is_number(condition):
            raise self._invalid(
                f'filter {field!r} must be a number or {{"min": ..., "max": ...}}, got {_kind(condition)}'
            )

    def _invalid(self, problem: str) -> LookupFailure:
        return LookupFailure(FORMAT_ERROR, None, f"Invalid arguments for '{self.name}': {problem}")


def _unknown(exception: str, problem: str, valid: Sequence[str]) -> LookupFailure:
    return LookupFailure(PROGRAM_ERROR, exception, f"{problem}; valid: {', '.join(valid)}")


def _fits(value: str | int | float, condition: Any) -> bool:
    if isinstance(value, str):
        return value.casefold() == condition.casefold()
    if isinstance(condition, dict):
        return condition.get("min", value) <= value <= condition.get("max", value)
    return bool(value == condition)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _integer(config: Mapping[str, Any], key: str, *, default: int, least: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{key}={value!r} must be an integer >= {least}.")
    return value
