"""What the tool tells the agent loop, and what it shows the model."""

import asyncio
import types
from pathlib import Path

import pytest
from scripted_judge import Answer, answer_with, verdict
from verl.tools.tool_registry import initialize_tools_from_config

import cleaner.tools
from cleaner.errors import ConfigError
from cleaner.tools.code_interpreter import CodeInterpreter

TRACEBACK = """Traceback (most recent call last):
  File "<code>", line 7, in <module>
    f()
    ~^^
  File "<code>", line 3, in f
    math.sqrt(4)
    ^^^^
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise x
NameError: name 'math' is not defined
"""


def execute(judge, parameters=None, agent_data=None, **config):
    tool = CodeInterpreter({"judge_url": judge.url, "deadline_s": 0.5, **config}, None)

    async def call():
        instance, _ = await tool.create()
        try:
            return await tool.execute(instance, parameters or {"code": "x"}, agent_data=agent_data)
        finally:
            await tool.release(instance)

    response, reward, metrics = asyncio.run(call())
    assert reward == 0.0 and metrics["outcome"].text == response.text
    return metrics["outcome"]


def always(**changes):
    """A script of the judge: every program ends so."""
    return lambda request: answer_with(request, [verdict(sent, **changes) for sent in request.submissions])


def test_success_shows_what_was_printed(judge):
    outcome = execute(judge)
    assert (outcome.status, outcome.text) == ("ok", "4")
    execute(judge, echo_last=False)
    assert [request.content.get("options") for request in judge.requests] == [{"echo_last": "1"}, None]


SYNTAX = '  File "<code>", line 2\n    print "x"\n    ^^^\nSyntaxError: oh\n'
LATE = "Timed out: the program was stopped after 4 s, at line 3\n"
NAME_ERROR = {"stderr": TRACEBACK, "stdout": "before\n", "exception": "NameError"}


@pytest.mark.parametrize(
    "changes, style, expected",
    [
        (
            {"run_success": True, "stdout": " \n"},
            "traceback",
            ("ok", None, "(no output: print() what you want to see)"),
        ),
        (
            NAME_ERROR,
            "last_line",
            ("program_error", "NameError", "NameError: name 'math' is not defined (line 3)"),
        ),
        (NAME_ERROR, "traceback", ("program_error", "NameError", "before\n" + TRACEBACK.strip())),
        (
            {"stderr": SYNTAX, "exception": "SyntaxError"},
            "last_line",
            ("program_error", "SyntaxError", "SyntaxError: oh (line 2)"),
        ),
        ({"stdout": ""}, "traceback", ("program_error", None, "The program failed without a message.")),
        ({"stderr": "bye", "stdout": ""}, "last_line", ("program_error", None, "bye")),
        (
            {"stderr": LATE, "reason": "worker_timeout", "stdout": "a"},
            "traceback",
            ("timeout", None, "a\nTimeoutError: the program was stopped after 4 s, at line 3"),
        ),
        (
            {"reason": "worker_timeout"},
            "last_line",
            ("timeout", None, "TimeoutError: the program took too long"),
        ),
        (
            {"stderr": "no surrogates", "reason": "invalid_input"},
            "traceback",
            ("format_error", None, "The code could not be run: no surrogates"),
        ),
    ],
)
def test_outcome_and_text_of_a_verdict(judge, changes, style, expected):
    judge.script = always(**{"run_success": False, **changes})
    outcome = execute(judge, error_style=style)
    assert (outcome.status, outcome.exception, outcome.text) == expected


def test_a_multi_line_message_shows_its_first_line(judge):
    stderr = TRACEBACK.replace("NameError: name 'math' is not defined", "ValueError: first\nsecond")
    judge.script = always(run_success=False, stderr=stderr)
    assert execute(judge, error_style="last_line").text == "ValueError: first (line 3)"


def test_an_unreachable_judge_is_not_the_models_mistake(judge):
    judge.script = lambda request: Answer({}, 503)
    outcome = execute(judge)
    assert outcome.status == "infrastructure" and outcome.retryable
    assert "not an error in your call" in outcome.text
    judge.script = always(run_success=False, reason="internal_error")
    assert execute(judge).status == "infrastructure"


def test_arguments_that_do_not_fit_never_reach_the_judge(judge):
    for parameters in ({"kode": "1"}, {"code": 1}, ["x"]):
        outcome = execute(judge, parameters)
        assert outcome.status == "format_error" and "Invalid arguments" in outcome.text
    assert judge.requests == []


def test_long_output_keeps_head_and_tail(judge):
    words = [f"word{number}" for number in range(5000)]
    judge.script = always(stdout=" ".join(words))
    text = execute(judge, max_observation_tokens=50).text
    assert text.startswith("word0 word1") and text.endswith("word4999") and "characters omitted" in text
    assert len(text) < 260
    tokenizer = types.SimpleNamespace(
        encode=lambda text, add_special_tokens: text.split(" "), decode=lambda tokens: " ".join(tokens)
    )
    text = execute(
        judge, agent_data=types.SimpleNamespace(tokenizer=tokenizer), max_observation_tokens=30
    ).text
    assert text == " ".join(words[:10]) + "\n... [4970 tokens omitted] ...\n" + " ".join(words[-20:])


def test_the_shipped_configuration_loads_and_the_address_comes_from_the_environment(monkeypatch, judge):
    path = Path(cleaner.tools.__file__).parent / "code_interpreter.yaml"
    monkeypatch.delenv("CODE_JUDGE_URL", raising=False)
    with pytest.raises(ConfigError, match="CODE_JUDGE_URL"):
        initialize_tools_from_config(path)
    monkeypatch.setenv("CODE_JUDGE_URL", judge.url)
    (tool,) = initialize_tools_from_config(path)
    assert tool.name == "code_interpreter" and tool.tool_schema.function.parameters.required == ["code"]


@pytest.mark.parametrize(
    "config, word",
    [
        ({"judge": "x"}, "unknown key 'judge'"),
        ({"error_style": "short"}, "last_line"),
        ({"max_observation_tokens": 3}, ">= 16"),
        ({"judge_url": "8088"}, "http://"),
    ],
)
def test_bad_configuration_is_refused(config, word):
    with pytest.raises(ConfigError, match=word):
        CodeInterpreter({"judge_url": "http://x", **config}, None)
