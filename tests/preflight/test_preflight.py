"""Each wrong input is found before anything starts, with what, where and what to do."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from cleaner import preflight
from cleaner.errors import ConfigError
from cleaner.preflight import (
    check_data,
    check_judge,
    check_model,
    check_output_dir,
    check_port,
    check_python,
    check_training_inputs,
)


@contextmanager
def answering(body: bytes = b'"pong"', status: int = 200) -> Iterator[str]:
    """A server that answers every GET alike; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
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


@contextmanager
def listening() -> Iterator[int]:
    """A port on which someone listens and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """One usable row in verl's format."""
    row = {
        "prompt": [{"role": "user", "content": "1 + 1?"}],
        "data_source": "sums",
        "reward_model": {"style": "rule", "ground_truth": "2"},
    }
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The outline of a model folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9)])
def test_supported_pythons_pass(version: tuple[int, ...]) -> None:
    assert check_python(version) == []


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 14), (3, 13, 0)])
def test_an_unsupported_python_is_named_with_a_remedy(version: tuple[int, ...]) -> None:
    (problem,) = check_python(version)
    assert ".".join(map(str, version)) in problem.what and "python3.11" in problem.fix


def test_good_rows_pass(rows: Path) -> None:
    assert check_data([rows]) == []


def test_missing_files_and_columns_are_all_told_at_once(rows: Path, tmp_path: Path) -> None:
    text, columns = tmp_path / "text.parquet", tmp_path / "columns.parquet"
    text.write_text("not parquet")
    pq.write_table(pa.table({"question": ["?"], "data_source": ["x"]}), columns)
    problems = check_data([tmp_path / "gone.parquet", text, rows, columns], "training file")
    assert len(problems) == 3
    for problem, file, what in zip(
        problems,
        ("gone.parquet", "text.parquet", "columns.parquet"),
        ("no such file", "parquet", "prompt"),
        strict=True,
    ):
        assert what in problem.what and problem.where == f"training file {tmp_path / file}" and problem.fix


def test_a_model_folder_and_a_hub_id_pass(model: Path) -> None:
    assert check_model(str(model)) == []
    assert check_model("Qwen/Qwen3-4B", {}) == []


def test_an_incomplete_model_folder_names_what_is_missing(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "config.json").unlink()
    (problem,) = check_model(str(model))
    assert "no config.json" in problem.what and "weights" in problem.what
    (model / "huggingface").mkdir()
    (model / "huggingface" / "config.json").touch()
    assert "huggingface" in check_model(str(model))[0].fix


@pytest.mark.parametrize("name", ["./models/tiny", "/nowhere/model", "~/nowhere/x", "just-a-name", "a/b/c"])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(name: str) -> None:
    (problem,) = check_model(name, {})
    assert "no such folder" in problem.what


def test_no_model_at_all_is_refused() -> None:
    assert "no model" in check_model("")[0].what


def test_a_hub_id_offline_must_be_in_the_cache(tmp_path: Path) -> None:
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    (problem,) = check_model("Qwen/Qwen3-4B", environment)
    assert "HF_HUB_OFFLINE" in problem.what
    (tmp_path / "hub" / "models--Qwen--Qwen3-4B" / "snapshots").mkdir(parents=True)
    assert check_model("Qwen/Qwen3-4B", environment) == []


def test_a_judge_that_answers_passes() -> None:
    with answering() as url:
        assert check_judge(url) == [] and check_judge(url + "/") == []


def test_each_of_several_judges_must_answer() -> None:
    with answering() as url:
        assert check_judge(f"{url}, {url}/") == []
        (problem,) = check_judge(f"{url},http://127.0.0.1:9")
    assert problem.where == "judge http://127.0.0.1:9"


def test_a_judge_behind_a_proxy_setting_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with answering() as url:
        assert check_judge(url) == []


@pytest.mark.parametrize(
    "url", [None, "", "localhost:8088", "ftp://host", "http://", "http://host:99999", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(url: str | None) -> None:
    (problem,) = check_judge(url, 0.2)
    assert "CODE_JUDGE_URL" in problem.fix


def test_a_judge_that_is_not_there_or_silent_or_another_service_is_told_apart() -> None:
    assert "cannot be reached" in check_judge(f"http://127.0.0.1:{free_port()}")[0].what
    with listening() as port:
        assert "did not answer within 0.2 s" in check_judge(f"http://127.0.0.1:{port}", 0.2)[0].what
    with answering(b"<html>") as url:
        assert "no code-judge" in check_judge(url)[0].what
    with answering(b"pong", 503) as url:
        assert "503" in check_judge(url)[0].what


def test_a_port_in_use_is_refused_and_a_free_one_passes() -> None:
    assert check_port(free_port()) == []
    with listening() as port:
        (problem,) = check_port(port)
        assert "in use" in problem.what and str(port) in problem.where
    assert "not a port" in check_port(0)[0].what and "not a port" in check_port(70000)[0].what


def test_a_writable_output_directory_passes_and_is_not_made(tmp_path: Path) -> None:
    assert check_output_dir(tmp_path / "a" / "b", 0.001) == []
    assert list(tmp_path.iterdir()) == []


def test_an_output_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in check_output_dir(tmp_path / "file")[0].what
    assert "is a file" in check_output_dir(tmp_path / "file" / "below")[0].what


def test_a_read_only_output_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight.tempfile, "NamedTemporaryFile", refuse)  # rights do not bind root
    assert "not writable (Permission denied)" in check_output_dir(tmp_path)[0].what


def test_a_full_disk_is_found_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28))
    (problem,) = check_output_dir(tmp_path, 1.0)
    assert "0.2 GiB free" in problem.what and "1 GiB" in problem.what

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preflight.tempfile, "NamedTemporaryFile", full)
    assert "disk is full" in check_output_dir(tmp_path)[0].what


@pytest.fixture
def training_config(rows: Path, model: Path, tmp_path: Path) -> Callable[..., object]:
    """A composed configuration as far as the checks read it, with overrides."""

    def build(**overrides: object) -> object:
        config = OmegaConf.create(
            {
                "cleaner": {"output_dir": str(tmp_path / "out")},
                "data": {"train_files": str(rows), "val_files": [str(rows)]},
                "actor_rollout_ref": {
                    "model": {"path": str(model)},
                    "rollout": {"multi_turn": {"enable": True, "tool_config_path": None}},
                },
            }
        )
        for path, value in overrides.items():
            OmegaConf.update(config, path.replace("__", "."), value)
        return config

    return build


def test_a_good_training_configuration_passes(training_config: Callable[..., object]) -> None:
    check_training_inputs(training_config())


def test_all_problems_of_a_training_configuration_are_told_at_once(
    training_config: Callable[..., object], tmp_path: Path
) -> None:
    config = training_config(
        data__train_files=[str(tmp_path / "gone.parquet")],
        actor_rollout_ref__model__path="/no/model",
        actor_rollout_ref__rollout__multi_turn__tool_config_path=str(tmp_path / "tools.yaml"),
    )
    with pytest.raises(ConfigError) as caught:
        check_training_inputs(config)
    lines = str(caught.value).splitlines()
    for word in ("gone.parquet", "/no/model", "tools.yaml"):
        assert sum(word in line for line in lines) == 1


def test_the_judge_of_our_tool_must_answer_except_in_a_dry_run(
    training_config: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools.yaml"
    url = f"http://127.0.0.1:{free_port()}"
    entry = {"class_name": "cleaner.tools.code_interpreter.CodeInterpreter", "config": {"judge_url": url}}
    tools.write_text(json.dumps({"tools": [{"class_name": "other.Tool", "config": {}}, entry]}))
    config = training_config(actor_rollout_ref__rollout__multi_turn__tool_config_path=str(tools))
    monkeypatch.delenv("DRY_RUN", raising=False)
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_training_inputs(config)
    monkeypatch.setenv("DRY_RUN", "1")
    check_training_inputs(config)


def test_the_judge_of_the_recipes_reward_must_answer_where_no_tool_needs_it(
    training_config: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = training_config(
        actor_rollout_ref__rollout__multi_turn__enable=False,
        reward__custom_reward_function__path="pkg://cleaner.rewards.recipe",
    )
    monkeypatch.delenv("DRY_RUN", raising=False)
    monkeypatch.setenv("CODE_JUDGE_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_training_inputs(config)
    with answering() as url:
        monkeypatch.setenv("CODE_JUDGE_URL", url)
        check_training_inputs(config)


def test_the_command_shows_all_problems_and_exits_with_2(tmp_path: Path, rows: Path, model: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cleaner.preflight", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=dict(os.environ))

    with listening() as port:
        wrong = ["--train", str(tmp_path / "gone"), "--model", "/no/model", "--port", str(port)]
        refused = call(
            *wrong, "--judge-url", f"http://127.0.0.1:{free_port()}", "--output-dir", str(rows), "--json"
        )
    assert refused.returncode == 2
    assert len([line for line in refused.stderr.splitlines() if line.startswith("error: ")]) == 5
    assert len(json.loads(refused.stdout)) == 5 and "Traceback" not in refused.stderr
    good = call(
        "--train", str(rows), "--val", str(rows), "--model", str(model), "--output-dir", str(tmp_path / "o")
    )
    assert good.returncode == 0 and good.stdout == good.stderr == ""
