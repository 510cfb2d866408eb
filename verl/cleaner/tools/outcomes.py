"""From what a verl tool returns or raises to a `ToolOutcome`.

A tool says its outcome in the metrics that `execute` returns, under `OUTCOME_KEY`; verl's agent loop drops these
metrics and turns every exception into text, so the loop watches the tool through an `ObservedTool` instead of
searching that text.
"""

from collections.abc import Mapping
from typing import Any

from verl.tools.function_tool import FunctionTool

from cleaner.errors import ToolInfrastructureError
from cleaner.saar.outcome import INFRASTRUCTURE, OK, PROGRAM_ERROR, TIMEOUT, ToolOutcome

# Key of the third value of a tool's `execute`; the value is a ToolOutcome or its `to_dict`.
OUTCOME_KEY = "outcome"
# Shown instead of an exception's text where the service is at fault: not the model's mistake, nothing to repair.
UNAVAILABLE_TEXT = "The tool is temporarily unavailable. This is not an error in your call."


class Observation:
    """What `ObservedTool` saw of one call: the exception that the tool raised, if any."""

    def __init__(self) -> None:
        self.error: Exception | None = None


class ObservedTool:
    """A `BaseTool` that notes what it raises. It hands the tool the trajectory's own `agent_data`."""

    def __init__(self, tool: Any, observation: Observation, agent_data: Any) -> None:
        self._tool = tool
        self._observation = observation
        self._agent_data = agent_data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tool, name)

    async def create(self, *args: Any, **kwargs: Any) -> Any:
        return await self._watched(self._tool.create(*args, **kwargs))

    async def execute(self, instance_id: str, parameters: Any, **kwargs: Any) -> Any:
        return await self._watched(
            self._tool.execute(instance_id, parameters, **{**kwargs, "agent_data": self._agent_data})
        )

    async def _watched(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:
            self._observation.error = error
            raise


class ObservedFunctionTool(FunctionTool):
    """A `FunctionTool` that notes what its function raises."""

    def __init__(self, tool: FunctionTool, observation: Observation) -> None:
        super().__init__(name=tool.name, fn=tool.fn, tool_schema=tool.tool_schema, is_async=tool.is_async)
        self._tool = tool
        self._observation = observation

    async def call(self, parameters: dict[str, Any]) -> Any:
        try:
            return await self._tool.call(parameters)
        except Exception as error:
            self._observation.error = error
            raise


def observed(tool: Any, observation: Observation, agent_data: Any) -> Any:
    """`tool` with its exceptions noted in `observation`; its results are unchanged."""
    if isinstance(tool, FunctionTool):
        return ObservedFunctionTool(tool, observation)
    return ObservedTool(tool, observation, agent_data)


def outcome_of(metrics: Any, text: str, error: Exception | None) -> ToolOutcome:
    """The outcome of a call that reached its tool.

    Args:
        metrics: third value of the tool's `execute`.
        text: what the model is shown.
        error: what the tool raised.
    """
    if isinstance(error, ToolInfrastructureError):
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
