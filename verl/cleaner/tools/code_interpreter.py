"""The tool `code_interpreter(code)`: runs Python in code-judge and says what became of it."""

import os
from typing import Any

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from cleaner.errors import ConfigError
from cleaner.saar.outcome import FORMAT_ERROR, INFRASTRUCTURE, ToolOutcome
from cleaner.tools.observation import ERROR_STYLES, exception_of, observation_text, status_of, truncate
from cleaner.tools.outcomes import OUTCOME_KEY, UNAVAILABLE_TEXT
from cleaner.tools.schema_check import schema_problem
from code_judge.client import JudgeSettings, JudgeSettingsError, JudgeUnavailable, python, shared_client
from code_judge.settings import URL_VARIABLE, token_of

_SETTINGS = {
    "judge_url": "url",
    "deadline_s": "deadline_s",
    "timeout_s": "request_timeout_s",
    "max_concurrency": "max_concurrency",
}
_OWN_KEYS = ("max_observation_tokens", "error_style", "echo_last", "type")
_DEADLINE_S = 120.0
_TIMEOUT_S = 60.0


def default_schema() -> OpenAIFunctionToolSchema:
    """The schema that the model is shown where the tool's configuration has none."""
    return OpenAIFunctionToolSchema.model_validate(
        {
            "type": "function",
            "function": {
                "name": "code_interpreter",
                "description": "Run Python code and return what it prints.",
                "parameters": {
                    "type": "object",
                    "properties": {"code": {"type": "string", "description": "Python source code"}},
                    "required": ["code"],
                },
            },
        }
    )


class CodeInterpreter(BaseTool):
    """Stateless: every call is a program of its own.

    Configuration (the tool's `config` in the file of `multi_turn.tool_config_path`):
        judge_url: address of code-judge, or several with commas between; default: the environment's CODE_JUDGE_URL.
        timeout_s: seconds for one request (60). The program's own limit is the judge's.
        deadline_s: seconds for one call, retries of infrastructure faults included (120).
        max_concurrency: programs at a time from this worker process (64), those of reward functions that use the
            same service by `code_judge.client` included.
        max_observation_tokens: longer output keeps its head and its tail (512). verl cuts to
            `multi_turn.max_tool_response_length` *characters* after that: set it high enough.
        error_style: `traceback`, or `last_line` (error and line number only).
        echo_last: print the last expression's value, as a notebook does (true).

    `execute` returns the text, reward 0.0, and {"outcome": ToolOutcome}.

    Raises:
        ConfigError: an unknown key or bad value, or no address of a judge.
    """

    def __init__(self, config: dict[str, Any] | None, tool_schema: OpenAIFunctionToolSchema | None) -> None:
        config = config or {}
        super().__init__(config, tool_schema or default_schema())
        known = (*_SETTINGS, *_OWN_KEYS)
        for key in config:
            if key not in known:
                raise ConfigError(
                    f"unknown key {key!r} in the configuration of {self.name}; valid: {', '.join(known)}."
                )
        given = {ours: config[key] for key, ours in _SETTINGS.items() if config.get(key) is not None}
        given.setdefault("url", os.environ.get(URL_VARIABLE, ""))
        if not given["url"]:
            raise ConfigError(
                f"{self.name}: no judge; set {URL_VARIABLE} or judge_url in the tool's configuration."
            )
        given = {"deadline_s": _DEADLINE_S, "request_timeout_s": _TIMEOUT_S, **given}
        try:
            self._judge = JudgeSettings(**given, token=token_of())
        except JudgeSettingsError as error:
            raise ConfigError(f"{self.name}: {error}") from error
        self._max_tokens = config.get("max_observation_tokens", 512)
        if (
            isinstance(self._max_tokens, bool)
            or not isinstance(self._max_tokens, int)
            or self._max_tokens < 16
        ):
            raise ConfigError(f"max_observation_tokens={self._max_tokens!r} must be an integer >= 16.")
        self._error_style = config.get("error_style", "traceback")
        if self._error_style not in ERROR_STYLES:
            raise ConfigError(f"error_style={self._error_style!r} must be one of {', '.join(ERROR_STYLES)}.")
        self._echo_last = bool(config.get("echo_last", True))

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Run `parameters["code"]`; never raises for what the program or the judge does."""
        tokenizer = getattr(kwargs.get("agent_data"), "tokenizer", None)
        outcome = await self._run(parameters)
        text = truncate(outcome.text, self._max_tokens, tokenizer)
        outcome = ToolOutcome(outcome.status, outcome.exception, text, outcome.retryable)
        return ToolResponse(text=text), 0.0, {OUTCOME_KEY: outcome}

    async def _run(self, parameters: dict[str, Any]) -> ToolOutcome:
        problem = schema_problem(self.tool_schema, parameters)
        if problem is None and not isinstance(parameters.get("code"), str):
            problem = "missing argument 'code'"
        if problem is not None:
            return ToolOutcome(FORMAT_ERROR, text=f"Invalid arguments for '{self.name}': {problem}")
        try:
            program = python(parameters["code"], echo_last=self._echo_last)
            reply = await shared_client(self._judge).run(program)
        except JudgeUnavailable as error:
            return ToolOutcome(INFRASTRUCTURE, type(error).__name__, UNAVAILABLE_TEXT, retryable=True)
        status = status_of(reply)
        if status == INFRASTRUCTURE:
            return ToolOutcome(INFRASTRUCTURE, str(reply.get("reason")), UNAVAILABLE_TEXT, retryable=True)
        return ToolOutcome(status, exception_of(reply), observation_text(reply, self._error_style))
