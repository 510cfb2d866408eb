"""A pytest plug-in that points verl's own tests at a loop class, and reports what they reached of it.

Loaded with `-p loop_under_test` in the process that runs verl's tests. `ToolAgentLoop` is replaced where verl keeps it,
before test files are collected; so both a test file's import and an import within a function get the class under test.
Nothing of that class is wrapped or changed: which of its methods ran is seen by a profile function.

The report is a JSON object:

- `outcomes`: node id -> "passed", "failed" or "skipped"
- `reached`: node id -> sorted names of the loop's methods that ran; of an overridden method, the overriding one
- `overridden`: sorted names of methods for which the class under test has another function than upstream's class
"""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

UPSTREAM = "verl.experimental.agent_loop.tool_agent_loop:ToolAgentLoop"
# The name by which verl's modules and test files know the loop.
NAME = UPSTREAM.rpartition(":")[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--loop", required=True, help="the class to test, as module:name")
    parser.addoption("--loop-report", required=True, type=Path, help="the file to write the report to")


def pytest_configure(config: pytest.Config) -> None:
    upstream, loop = _load(UPSTREAM), _load(config.getoption("loop"))
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "verl" and vars(module).get(NAME) is upstream:
            setattr(module, NAME, loop)
    config.pluginmanager.register(LoopWatch(upstream, loop, config.getoption("loop_report")))


def _load(path: str) -> type:
    module, _, name = path.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    assert isinstance(loaded, type), path
    return loaded


def _methods(loop: type) -> dict[str, CodeType]:
    """Code of each method of a loop class, by name, with decorators taken off."""
    functions = {
        name: inspect.unwrap(member) for name, member in inspect.getmembers(loop, inspect.isfunction)
    }
    return {name: function.__code__ for name, function in functions.items()}


class LoopWatch:
    """Watches verl's tests from collection to report."""

    def __init__(self, upstream: type, loop: type, report: Path) -> None:
        self.loop = loop
        self.report = report
        methods, upstreams = _methods(loop), _methods(upstream)
        self.names = {code: name for name, code in methods.items()}
        self.overridden = sorted(name for name in upstreams if methods[name] is not upstreams[name])
        self.outcomes: dict[str, str] = {}
        self.reached: dict[str, list[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """A test file that has got hold of another class would say nothing about the one under test."""
        for item in session.items:
            module: Any = getattr(item, "module", None)
            if vars(module).get(NAME, self.loop) is not self.loop:
                raise pytest.UsageError(f"{item.nodeid} tests {vars(module)[NAME]}, not {self.loop}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        names: set[str] = set()

        def note(frame: FrameType, event: str, arg: object) -> None:
            if event == "call" and (name := self.names.get(frame.f_code)) is not None:
                names.add(name)

        sys.setprofile(note)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.reached[item.nodeid] = sorted(names)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        fields = {"outcomes": self.outcomes, "reached": self.reached, "overridden": self.overridden}
        self.report.write_text(json.dumps(fields))
