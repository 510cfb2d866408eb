"""What verl's own tests ask of its tool agent loop, ours does too.

The tests come with verl's source distribution and stay in the cache, where `fetch.sh` puts them. They make loops from
fakes, without a session of ours, so they see the loop as it is with rollback off.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
VERSION = importlib.metadata.version("verl")
SDIST = HERE.parents[1] / ".cache" / f"verl-{VERSION}-tests"
FOLDER = "tests/experimental/agent_loop"
# Files that make a `ToolAgentLoop`, and the number of tests in each.
FILES = {f"{FOLDER}/test_call_tool_on_cpu.py": 8, f"{FOLDER}/test_tool_call_id_on_cpu.py": 3}
UPSTREAMS = "verl.experimental.agent_loop.tool_agent_loop:ToolAgentLoop"
OURS = "cleaner.agent_loop:CleanerAgentLoop"


@dataclass(frozen=True)
class Result:
    """One run of verl's test files; the fields of the report are explained in `loop_under_test`."""

    exit_code: int
    output: str
    outcomes: dict[str, str]
    reached: dict[str, set[str]]
    overridden: set[str]


def run(loop: str, report: Path) -> Result:
    """Run verl's test files against a loop class, given as module:name."""
    # Nothing that steers our own test run may steer this one: no configuration file, no options, no other plug-ins.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {
        "PYTHONPATH": str(HERE),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    pytest_options = ["-q", "-c", os.devnull, f"--rootdir={SDIST}", "-p", "no:cacheprovider"]
    plugin = ["-p", "loop_under_test", f"--loop={loop}", f"--loop-report={report}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *pytest_options, *plugin, *FILES],
        cwd=SDIST,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert report.exists(), f"verl's tests did not run to their end with {loop}:\n{done.stdout}"
    fields = json.loads(report.read_text())
    reached = {test: set(names) for test, names in fields["reached"].items()}
    return Result(done.returncode, done.stdout, fields["outcomes"], reached, set(fields["overridden"]))


@pytest.fixture(scope="module")
def sdist() -> Path:
    pin = SDIST / "sdist.txt"
    if not pin.exists() or pin.read_text() != (HERE / "sdist.txt").read_text():
        pytest.fail(
            f"verl's own tests are not in {SDIST}. Fetch them: bash tests/upstream/fetch.sh", pytrace=False
        )
    return SDIST


@pytest.fixture(scope="module")
def upstreams(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(UPSTREAMS, tmp_path_factory.mktemp("upstreams") / "report.json")


@pytest.fixture(scope="module")
def ours(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(OURS, tmp_path_factory.mktemp("ours") / "report.json")


def passed(result: Result) -> dict[str, int]:
    """Number of tests that passed, by file."""
    files = [test.partition("::")[0] for test, outcome in result.outcomes.items() if outcome == "passed"]
    return {file: files.count(file) for file in dict.fromkeys(files)}


def test_the_tests_are_those_of_the_installed_release() -> None:
    pin = (HERE / "sdist.txt").read_text().splitlines()[-1]
    assert pin.split(" ")[0] == f"verl=={VERSION}"


def test_every_test_file_of_verl_that_makes_a_tool_agent_loop_is_run(sdist: Path) -> None:
    files = (path for path in sdist.rglob("*.py") if "tool_agent_loop import" in path.read_text())
    assert {str(path.relative_to(sdist)) for path in files} == set(FILES)


def test_upstreams_loop_passes_upstreams_tests(upstreams: Result) -> None:
    assert upstreams.exit_code == 0, upstreams.output
    assert passed(upstreams) == FILES, upstreams.output
    assert upstreams.overridden == set()


def test_our_loop_passes_upstreams_tests(ours: Result) -> None:
    assert ours.exit_code == 0, ours.output
    assert passed(ours) == FILES, ours.output


def test_our_methods_ran_wherever_upstreams_ran(ours: Result, upstreams: Result) -> None:
    assert sum(bool(names) for names in upstreams.reached.values()) == 10
    missed = {test: names - ours.reached[test] for test, names in upstreams.reached.items()}
    assert not any(missed.values()), missed
    # These are ours, so what has run is not upstream's code under another name.
    assert {"_call_tool", "_handle_processing_tools_state"} <= ours.overridden & set().union(
        *ours.reached.values()
    )
