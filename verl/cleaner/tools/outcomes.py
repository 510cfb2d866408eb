"""From what a verl tool returns or raises to a `ToolOutcome`.

A tool says its outcome in the metrics that `execute` returns, under `OUTCOME_KEY`; verl's agent loop drops these
metrics and turns every exception into text, so the loop watches the tool through an `ObservedTool` instead of
searching that text.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from verl.tools.function_tool import FunctionTool
from verl.tools.schemas import ToolResponse

from cleaner.errors import ToolInfrastructureError
from cleaner.saar.outcome import INFRASTRUCTURE, OK, PROGRAM_ERROR, TIMEOUT, ToolOutcome
from cleaner.tools.schema_check import schema_problem
from code_judge.errors import JudgeUnavailable

# Key of the third value of a tool's `execute`; the value is a ToolOutcome or its `to_dict`.
OUTCOME_KEY = "outcome"
# Shown instead of an exception's text where the service is at fault: not the model's mistake, nothing to repair.
UNAVAILABLE_TEXT = "The tool is temporarily unavailable. This is not an error in your call."


class Observation:
    """What an observed tool saw of one call.

    Attributes:
        strict: whether arguments that do not fit the tool's schema are kept from the tool.
        reached: whether the call came as far as its tool: the name is known, the arguments are JSON.
        misfit: why the arguments do not fit.
        error: what the tool raised.
    """

    __slots__ = ("error", "misfit", "reached", "strict")

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.reached = False
        self.misfit: str | None = None
        self.error: Exception | None = None

    def refusal(self, tool: Any, arguments: Any) -> str | None:
        """Text for the model if the tool is not to be run on `arguments`."""
        self.reached = True
        self.misfit = schema_problem(tool.tool_schema, arguments)
        return f"Invalid arguments for '{tool.name}': {self.misfit}" if self.misfit and self.strict else None


# The observation of the call that this task makes; tools are observed once per agent loop, not once per call.
OBSERVATION: ContextVar[Observation] = ContextVar("cleaner_observation")


class ObservedTool:
    """A `BaseTool` that notes in the current `OBSERVATION` what it is asked and what it raises."""

    def __init__(self, tool: Any) -> None:
        self._tool = tool
        self.tool_schema = tool.tool_schema
        self.name = tool.name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    async def create(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await self._tool.create(*args, **kwargs)
        except Exception as error:
            observation = OBSERVATION.get()
            observation.reached, observation.error = True, error
            raise

    async def execute(self, instance_id: str, parameters: Any, **kwargs: Any) -> Any:
        observation = OBSERVATION.get()
        if refusal := observation.refusal(self, parameters):
            return ToolResponse(text=refusal), 0.0, {}
        try:
            return await self._tool.execute(instance_id, parameters, **kwargs)
        except Exception as error:
            observation.error = error
            raise


class ObservedFunctionTool(FunctionTool):
    """A `FunctionTool` that notes what its function raises."""

    def __init__(self, tool: FunctionTool) -> None:
        super().__init__(name=tool.name, fn=tool.fn, tool_schema=tool.tool_schema, is_async=tool.is_async)
        self._tool = tool

    async def call(self, parameters: dict[str, Any]) -> Any:
        observation = OBSERVATION.get()
        if refusal := observation.refusal(self, parameters):
            return refusal
        try:
            return await self._tool.call(parameters)
        except Exception as error:
            observation.error = error
            raise


def observed(tool: Any) -> Any:
    """`tool` with its exceptions noted in the current `OBSERVATION`; its results are unchanged."""
    if isinstance(tool, FunctionTool):
        return ObservedFunctionTool(tool)
    return ObservedTool(tool)


def outcome_of(metrics: Any, text: str, error: Exception | None) -> ToolOutcome:
    """The outcome of a call that reached its tool.

    Args:
        metrics: third value of the tool's `execute`.
        text: what the model is shown.
        error: what the tool raised.
    """
    if isinstance(error, ToolInfrastructureError | JudgeUnavailable):
        return ToolOutcome(
            INFRASTRUCTURE, exception=type(error).__name__, text=UNAVAILABLE_TEXT, retryable=True
        )
    if isinstance(error, TimeoutError):
        return ToolOutcome(TIMEOUT, exception=type(error).__name__, text=text)
    if error is not None:
        return ToolOutcome(PROGRAM_ERROR, exception=type(error).__name__, text=text)
    told = metrics.get(OUTCOME_KEY) if isinstance(metrics, Mapping) else None
    if isinstance(told, Mapping):
        told = ToolOutcome.from_dict(told)
    if isinstance(told, ToolOutcome):
        return ToolOutcome(told.status, told.exception, text, told.retryable)
    return ToolOutcome(OK, text=text)
