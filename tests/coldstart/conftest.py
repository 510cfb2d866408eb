"""Real execution for these tests: one Python process that runs programs one after the other."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from cleaner.coldstart.episodes import Observation
from cleaner.coldstart.execute import ERROR_STYLE
from cleaner.tools.observation import observation_text

_RUNNER = """
import contextlib, io, json, sys, traceback
results = []
for code in json.load(sys.stdin):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
        results.append((True, printed.getvalue(), ''))
    except Exception:
        results.append((False, printed.getvalue(), traceback.format_exc()))
json.dump(results, sys.stdout)
"""


def run_programs(programs: Sequence[str]) -> list[Observation]:
    """Run programs in a fresh interpreter; the texts are those of the training tool."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _RUNNER],
        input=json.dumps(list(programs)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    replies = [
        {"run_success": ok, "stdout": stdout, "stderr": stderr}
        for ok, stdout, stderr in json.loads(done.stdout)
    ]
    return [Observation(observation_text(reply, ERROR_STYLE), reply["run_success"]) for reply in replies]


@pytest.fixture(scope="session")
def execute():
    """An ``Execute`` (see ``cleaner.coldstart.episodes``)."""
    return run_programs
