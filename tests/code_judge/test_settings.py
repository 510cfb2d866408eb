"""Settings: each is shown, none is misread in silence, secrets are masked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from judge_service import CODE_JUDGE, environment

from app.settings import Settings, SettingsError, describe, load, misspelt, without_password


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def _cli(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=CODE_JUDGE,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_settings_shows_present_values_marks_changes_and_masks_secrets() -> None:
    done = _cli(
        "settings",
        MAX_MEMORY="512",
        CODE_JUDGE_TOKEN="very-secret-token",
        REDIS_URI="redis://user:pass-word@host:6379",
        CODE_JUDGE_MEMORY="1",
    )
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert set(lines) >= {name.upper() for name in Settings.model_fields}
    assert lines["MAX_MEMORY"].split()[1:4] == ["512", "*", "256"]
    assert lines["MAX_DISK"].split()[1:3] == ["64", "64"]
    assert "redis://***@host:6379 *" in lines["REDIS_URI"] and lines["CODE_JUDGE_TOKEN"].split()[2] == "*"
    assert "pass-word" not in done.stdout and "very-secret" not in done.stdout
    assert "CODE_JUDGE_MEMORY" in done.stderr and "MAX_MEMORY" in done.stderr


def test_every_setting_has_a_meaning_and_a_default_that_is_valid() -> None:
    rows = list(describe(load()))
    assert len(rows) == len(Settings.model_fields)
    assert all(row.meaning for row in rows) and not any(row.changed for row in rows)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CODE_JUDGE_TOKN", "CODE_JUDGE_TOKEN"),
        ("CODE_JUDGE_MAX_MEMORY", "MAX_MEMORY"),
        ("CODE_JUDGE_MAX_EXECUTION_TIMES", "MAX_EXECUTION_TIME"),
        ("MAX_EXECUTON_TIME", "MAX_EXECUTION_TIME"),
        ("REDIS_URL", "REDIS_URI"),
    ],
)
def test_a_misspelt_setting_is_told_with_the_nearest_name(name: str, near: str) -> None:
    (line,) = misspelt({name: "1", "PATH": "/bin", "HOME": "/", "CODE_JUDGE_URL": "http://host"})
    assert name in line and f"{near}?" in line


def test_an_unknown_setting_of_ours_is_told_even_if_nothing_is_near() -> None:
    (line,) = misspelt({"CODE_JUDGE_XYZ": "1"})
    assert "CODE_JUDGE_XYZ" in line and "ignored" in line


def test_no_setting_and_no_ordinary_variable_is_held_for_a_mistake() -> None:
    known = dict.fromkeys((name.upper() for name in Settings.model_fields), "1")
    ordinary = {"LOG_DIR": "", "MAX_JOBS": "", "REDIS_HOST": "", "RUN_ID": "", "TOKENIZERS_PARALLELISM": ""}
    assert not list(misspelt(known | ordinary | {"REDIS_URL": "for another program; REDIS_URI is set"}))


def test_a_token_comes_from_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    monkeypatch.setenv("CODE_JUDGE_TOKEN_FILE", str(path))
    settings = load()
    assert settings.token == "from-a-file"
    assert "from-a-file" not in repr(settings)
    monkeypatch.setenv("CODE_JUDGE_TOKEN", "another")
    with pytest.raises(SettingsError, match="both"):
        load()


@pytest.mark.parametrize("content", ["", " \n", "two words", "schlüssel", "a\nb", "a\0b"])
def test_a_token_that_no_client_can_send_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    monkeypatch.setenv("CODE_JUDGE_TOKEN_FILE", str(path))
    with pytest.raises(SettingsError, match="CODE_JUDGE_TOKEN") as problem:
        load()
    assert "\n" not in str(problem.value) and (not content.strip() or content not in str(problem.value))


def test_a_token_file_that_can_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODE_JUDGE_TOKEN_FILE", "/nowhere/token")
    with pytest.raises(SettingsError, match="/nowhere/token.*No such file"):
        load()


def test_the_drain_lasts_as_long_as_a_program_may_run_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAX_EXECUTION_TIME", "4")
    assert load().drain_seconds == 6
    monkeypatch.setenv("DRAIN_TIMEOUT", "0")
    assert load().drain_seconds == 0


def test_only_the_password_of_an_address_is_masked() -> None:
    assert without_password("redis://u:p@host:1/0 and unix:///a/b") == "redis://***@host:1/0 and unix:///a/b"
    assert without_password("redis://:p@ss@host") == "redis://***@host"
    assert without_password("mail me@host") == "mail me@host"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["workers", "--help"], ["settings", "--help"]]
)
def test_help_says_what_each_command_does(arguments: list[str]) -> None:
    done = _cli(*arguments, COLUMNS="100")
    assert done.returncode == 0 and not done.stderr
    assert "==SUPPRESS==" not in done.stdout and len(done.stdout) > 150
    if arguments == ["--help"]:
        for command in ("serve", "workers", "settings", "doctor"):
            assert f"\n    {command}" in done.stdout
        assert (
            os.path.basename(sys.executable) not in done.stdout
            and "web " not in done.stdout.split("serve")[0]
        )


EXAMPLES = CODE_JUDGE / "examples"


@pytest.mark.parametrize("name", ["code-judge.service", "Containerfile"])
def test_the_settings_that_an_example_names_exist(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    lines = [line for line in text.splitlines() if line.startswith(("Environment=", "ENV "))]
    named = re.findall(
        r"\b([A-Z_]{4,})=", " ".join(line.partition(" " if line[3] == " " else "=")[2] for line in lines)
    )
    named += [
        word for word in re.findall(r"\b[A-Z]+_[A-Z_]+\b", text) if word.startswith(("CODE_", "DRAIN_"))
    ]
    assert named and set(named) <= {field.upper() for field in Settings.model_fields}


def test_the_systemd_unit_waits_for_the_drain_and_keeps_the_sandbox_whole(tmp_path: Path) -> None:
    text = (EXAMPLES / "code-judge.service").read_text()
    entries = [line.split("=", 1) for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)]
    unit = dict(entries)
    (limit,) = re.findall(r"MAX_EXECUTION_TIME=(\d+)", text)
    assert int(unit["TimeoutStopSec"]) > float(limit) + 2 and unit["KillMode"] == "mixed"
    forbidden = {
        "RestrictNamespaces",
        "SystemCallFilter",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProcSubset",
    }
    assert not forbidden & set(unit)
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("no systemd-analyze here to parse the unit")
    path = tmp_path / "code-judge.service"
    path.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text))
    done = subprocess.run(
        [verify, "verify", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0 and "code-judge.service" not in done.stderr, done.stderr
