"""`code-judge run`, and calls from code without an event loop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from judge_service import CODE_JUDGE, eventually
from scripted_judge import Answer, scripted_judge, verdict, well

from app.cli import main
from code_judge.blocking import run_sync
from code_judge.client import JudgeSettings, JudgeUnavailable, python, shared_client


@pytest.fixture
def fake():
    with scripted_judge() as judge:
        yield judge


def test_a_file_runs_through_the_real_service(judge, tmp_path, capfdbinary, monkeypatch):
    monkeypatch.setenv("CODE_JUDGE_URL", judge.url)
    program = tmp_path / "p.py"
    program.write_text("print(input()[::-1])\nimport sys\nprint('oh', file=sys.stderr)\n'é'\n")
    (tmp_path / "in").write_text("abc\n")
    (tmp_path / "out").write_text("cba\né")
    options = ["--stdin", str(tmp_path / "in"), "--echo-last"]
    assert main(["run", str(program), *options]) == 0
    out, err = capfdbinary.readouterr()
    assert out.decode() == "cba\n'é'\n"
    assert err.decode().startswith("oh\ncode-judge: success, 0.")
    assert main(["run", str(program), *options, "--expect", str(tmp_path / "out"), "--json"]) == 1
    assert json.loads(capfdbinary.readouterr()[0])["run_success"] is True


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"success": False}, 1, "wrong answer"),
        ({"success": False, "run_success": False, "exception": "ValueError"}, 1, "ValueError"),
        ({"success": False, "run_success": False, "reason": "worker_timeout"}, 1, "worker_timeout"),
    ],
)
def test_the_exit_status_says_whether_it_succeeded(fake, tmp_path, capfd, changes, status, said):
    fake.script = lambda request: Answer(verdict(request.content, **changes))
    (tmp_path / "p.cpp").write_text("int main() {}")
    assert main(["run", str(tmp_path / "p.cpp"), "--url", fake.url, "--timeout", "2"]) == status
    assert said in capfd.readouterr().err
    assert fake.requests[0].content["type"] == "cpp"
    assert fake.requests[0].content["options"] == {"timeout": "2.0"}


def test_mistakes_and_outages_are_one_line_and_status_2(tmp_path, capfd):
    (tmp_path / "p.py").write_text("1")
    for arguments, said in (
        ([str(tmp_path / "none.py")], "none.py"),
        ([str(tmp_path / "p.py"), "--url", "localhost"], "must be an address"),
        ([str(tmp_path / "p.py"), "--url", "http://127.0.0.1:9", "--deadline", "0.1"], "no connection"),
    ):
        assert main(["run", *arguments]) == 2
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("code-judge: ") and said in lines[0]


def test_threads_without_an_event_loop_share_one_client(fake):
    client = shared_client(JudgeSettings(fake.url))
    run_sync(client.run(python("print(4)")))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: run_sync(client.run(python("print(4)"))), range(20)))
    assert all(result["run_success"] for result in results)
    assert fake.connections <= 4
    fake.script = lambda request: Answer({}, 401)
    with pytest.raises(JudgeUnavailable):
        run_sync(client.run(python("print(4)")))


def test_an_event_loop_is_not_blocked_by_mistake(fake):
    async def call():
        run_sync(shared_client(JudgeSettings(fake.url)).run(python("print(4)")))

    with pytest.raises(RuntimeError, match="await"):
        asyncio.run(call())
    assert not fake.requests


@pytest.mark.parametrize("how", ["run_sync", "command"])
def test_an_interrupt_stops_the_program_quietly(fake, tmp_path, how):
    fake.script = lambda request: well(request, delay=30)
    (tmp_path / "p.py").write_text("while True: pass")
    code = (
        "from code_judge.client import *\nfrom code_judge.blocking import run_sync\n"
        "try: run_sync(JudgeClient(URL).run(python('while True: pass')))\n"
        "except KeyboardInterrupt: raise SystemExit(130)"
    ).replace("URL", repr(fake.url))
    command = (
        ["-c", code]
        if how == "run_sync"
        else ["-m", "app.cli", "run", str(tmp_path / "p.py"), "--url", fake.url]
    )
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=CODE_JUDGE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert eventually(lambda: fake.requests, 20)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == (None, b"")
    assert process.returncode == 130
    assert eventually(lambda: fake.left == 1, 5)
