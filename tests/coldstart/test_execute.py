"""Programs of the cold start run in the real code-judge, and the command line explains what it can't do."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cleaner.coldstart.__main__ import main
from cleaner.coldstart.episodes import Observation
from cleaner.coldstart.execute import judge_executor
from cleaner.errors import ConfigError
from cleaner.tools.observation import NO_OUTPUT

JUDGE = Path(__file__).parents[2] / "code-judge"


@pytest.fixture(scope="module")
def judge_url(tmp_path_factory):
    ready = tmp_path_factory.mktemp("judge") / "url"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--workers", "1", "--die-with-parent"]
    environment = {**os.environ, "PYTHONPATH": str(JUDGE), "MAX_EXECUTION_TIME": "4"}
    service = subprocess.Popen([*command, "--ready-file", str(ready)], cwd=JUDGE, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (ready.exists() and ready.read_text().strip()):
            assert service.poll() is None, "code-judge ended"
            assert time.monotonic() < deadline, "code-judge is not ready"
            time.sleep(0.1)
        yield ready.read_text().strip()
    finally:
        service.terminate()
        service.wait(timeout=30)


def test_observations_are_those_of_the_training_tool(judge_url):
    run = judge_executor(judge_url)
    seen = run(["print(6 * 7)", "print(math.gcd(8, 12))", "x = 1", "print((1)", "4 + 4", "print(6 * 7)"])
    assert seen == [
        Observation("42", True),
        Observation("NameError: name 'math' is not defined (line 1)", False),
        Observation(NO_OUTPUT, True),
        Observation("SyntaxError: '(' was never closed (line 1)", False),
        Observation("8", True),
        Observation("42", True),
    ]


def test_an_unreachable_judge_is_an_error_that_names_its_address():
    with pytest.raises(ConfigError, match=r"code-judge can't be used: .*http://127.0.0.1:9 "):
        judge_executor("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--minutes", "0"], "--minutes must be above 0, got 0.0"),
        (["--traces", "-1"], "--traces must be above 0, got -1"),
        (["--evaluate", "-1"], "--evaluate must be 0 or more, got -1"),
        (["--judge-url", "localhost:8088"], "must be an address like http://host:8088"),
    ],
)
def test_the_command_line_explains_bad_input(tmp_path, capsys, options, message):
    assert main(["--out", str(tmp_path / "model"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_the_command_makes_a_loadable_checkpoint_and_a_report(judge_url, tmp_path, capsys):
    out = tmp_path / "model"
    options = [
        "--steps",
        "3",
        "--traces",
        "24",
        "--evaluate",
        "2",
        "--minutes",
        "0.05",
        "--judge-url",
        judge_url,
    ]
    assert main(["--out", str(out), *options]) == 0
    assert '"accuracy"' in capsys.readouterr().out
    assert {"model.safetensors", "tokenizer.json", "coldstart.json"} <= {path.name for path in out.iterdir()}
    assert [path for path in tmp_path.iterdir() if path.name != "model"] == []
