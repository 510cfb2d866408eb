"""The doctor's verdicts from findings, one real examination, and a command line that stays light."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cleaner import cli, doctor
from cleaner.doctor import ERROR, INFO, OK, WARNING, Check, judge_checks, probe_checks

GOOD = {
    "registered": ["nvidia", "cpu"],
    "entry_points": ["cleaner.cpu.plugin"],
    "plugin_loaded": True,
    "platform": "cpu",
    "backend": {"rollout server hf_server": True},
    "gpus": [],
}
CPU = {"VERL_PLATFORM": "cpu"}


def verdicts(changes: dict[str, Any], environment: dict[str, str] | None = None) -> dict[str, Check]:
    checks = probe_checks({**GOOD, **changes}, CPU if environment is None else environment)
    return {check.name: check for check in checks}


@contextmanager
def judge(status: object) -> Iterator[str]:
    """A judge that answers /ping, and /status with the given object."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'"pong"' if self.path == "/ping" else json.dumps(status).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_cpu_machine_with_everything_in_place_is_healthy() -> None:
    assert {check.level for check in verdicts({}).values()} == {OK, INFO}


@pytest.mark.parametrize(
    ("changes", "environment", "name", "said"),
    [
        ({"platform": "cuda"}, {}, "verl's platform", "export VERL_PLATFORM=cpu"),
        (
            {"platform": None, "platform_error": "ValueError: Unknown platform 'cpuu'"},
            None,
            "verl's platform",
            "cpuu",
        ),
        ({"entry_points": [], "plugin_loaded": False}, None, "plug-in", "pip install -e verl[cpu]"),
        ({"plugin_loaded": False, "plugin_error": "ImportError: x"}, None, "plug-in", "ImportError: x"),
        ({"plugin_loaded": False}, {**CPU, "VERL_USE_EXTERNAL_PLUGINS": "none"}, "plug-in", "PLUGINS=none"),
        ({"backend_error": "ImportError: y"}, None, "registrations", "ImportError: y"),
        ({"backend": {"rollout server hf_server": False}}, None, "registrations", "missing: rollout server"),
        ({"error": "it broke"}, None, "verl's platform", "it broke"),
    ],
)
def test_what_is_wrong_is_an_error_with_a_remedy(
    changes: dict[str, Any], environment: dict[str, str] | None, name: str, said: str
) -> None:
    check = verdicts(changes, environment)[name]
    assert check.level == ERROR and check.fix and said in f"{check.found} {check.fix}"


def test_gpus_left_unused_are_a_warning() -> None:
    assert verdicts({"gpus": ["a GPU"]})["verl's platform"].level == WARNING
    assert verdicts({"gpus": ["a GPU"], "platform": "cuda"}, {})["verl's platform"].level == OK


def test_a_judge_is_needed_only_where_one_is_named() -> None:
    assert judge_checks(None)[0].level == INFO
    assert judge_checks("http://127.0.0.1:9")[0].level == ERROR


@pytest.mark.parametrize(
    ("status", "levels"),
    [
        (
            {"queue": 0, "num_workers": 2, "isolation": {"seccomp": True, "landlock": 7, "safe": True}},
            [OK, OK],
        ),
        ({"queue": 0, "num_workers": 2, "isolation": {"seccomp": False, "safe": False}}, [OK, WARNING]),
        (
            {"queue": 0, "num_workers": 2, "isolation": {"a": {"safe": True}, "b": {"safe": False}}},
            [OK, WARNING],
        ),
        ({"queue": 3, "num_workers": 0}, [ERROR, INFO]),
        (["not", "an", "object"], [ERROR]),
    ],
)
def test_a_judge_tells_its_workers_and_its_isolation(status: object, levels: list[str]) -> None:
    with judge(status) as url:
        assert [check.level for check in judge_checks(url)] == levels


def test_a_version_that_does_not_fit_the_pins_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: {"verl": "==0.9.1", "cydifflib": ">=1.2"})
    monkeypatch.setattr(
        doctor, "_version", lambda name: {"verl": "0.7.0", "cydifflib": None}.get(name, "9.9")
    )
    found = {check.name: check for check in doctor._packages()}
    assert found["verl"].level == ERROR and "0.7.0, but ==0.9.1 is needed" in found["verl"].found
    assert found["cydifflib"].level == ERROR and "pip install 'cydifflib>=1.2'" in found["cydifflib"].fix
    assert found["ray"].level == OK


def test_a_probe_that_breaks_or_hangs_is_told_and_not_raised() -> None:
    assert "took longer" in doctor.probe(timeout_s=0.01)["error"]
    broken = {**os.environ, "PYTHONPATH": "", "VERL_USE_EXTERNAL_MODULES": "no_such_module_xyz"}
    assert "status 1" in doctor.probe(broken)["error"]


def test_the_doctor_examines_this_environment() -> None:
    environment = {**os.environ, **CPU}
    environment.pop("CODE_JUDGE_URL", None)
    command = [sys.executable, "-m", "cleaner.cli", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    answer = json.loads(done.stdout)
    found = {check["name"]: check for check in answer["checks"]}
    assert done.returncode == (0 if answer["healthy"] else 1)
    assert found["python"]["level"] == OK and found["verl"]["found"].startswith("0.9.1")
    assert found["verl's platform"]["level"] == OK and found["verl's platform"]["found"].startswith("cpu")
    assert found["plug-in"]["level"] == OK, found["plug-in"]
    assert found["registrations"]["level"] == OK, found["registrations"]


def test_the_text_says_what_to_do_below_each_error() -> None:
    text = doctor.report([Check("verl", ERROR, "not installed", "Install it"), Check("ray", OK, "2.60")])
    assert "-> Install it." in text and text.endswith("1 thing(s) to put right.")


def test_the_command_line_stays_light() -> None:
    script = (
        "import sys\nfrom cleaner import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'verl', 'ray', 'numpy', 'rich', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"cleaner --help imports {done.stderr}"
    assert time.monotonic() - start < 5  # 0.1 s on an idle machine; a bound that a busy one keeps
    for command in ("doctor", "show", "version"):
        assert command in done.stdout


def test_showing_a_run_needs_neither_torch_nor_verl() -> None:
    script = (
        "import sys, cleaner.report.closing, cleaner.preflight, cleaner.doctor\n"
        "sys.exit(', '.join(sorted({'torch', 'verl', 'ray'} & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"imports {done.stderr}"


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert "verl 0.9.1" in capsys.readouterr().out
    for wrong in (
        [],
        ["nonsense"],
        ["show"],
        ["show", "x", "--decision", "sideways"],
        ["show", "x", "--count", "-1"],
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(wrong)
        assert caught.value.code == 2
