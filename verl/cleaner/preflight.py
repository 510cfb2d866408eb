"""Checks that run before anything starts, so that a wrong path costs a second and not an hour.

Each check returns the problems it found; all checks run, so that all problems are shown at once. A problem
says what is wrong, where, and what to do. `python -m cleaner.preflight ...` exits with status 2 when there is
one. Nothing is written except a probe file in the output directory, which is removed again.
"""

from __future__ import annotations

import argparse
import errno
import http.client
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MIN_PYTHON = (3, 11)
"""verl 0.9.1 takes 3.10 to 3.12; this project uses 3.11's syntax and library."""
PYTHON_BELOW = (3, 13)

JUDGE_TIMEOUT_S = 3.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.gguf")


@dataclass(frozen=True)
class Problem:
    """One thing to put right: what is wrong, where (a path, an address, a setting), and what to do about
    it.
    """

    what: str
    where: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.fix}"


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> list[Problem]:
    """The interpreter's version is one that verl and this project support."""
    if MIN_PYTHON <= version[:2] < PYTHON_BELOW:
        return []
    found = ".".join(str(part) for part in version)
    return [
        Problem(
            f"Python {found} is not supported, 3.11 and 3.12 are",
            sys.executable,
            "Make the virtual environment with python3.11, or set PYTHON=python3.11 for the quick start",
        )
    ]


def check_data(files: Sequence[str | Path], option: str = "data file", mapped: bool = False) -> list[Problem]:
    """Each file is parquet with usable rows (`cleaner.data.schema.check_rows`, which names file, row and
    column).

    Args:
        mapped: the run maps rows as it reads them (`cleaner.data.row_files.maps_rows`), so that they may have any
            form that `cleaner.data.mapping` knows.
    """
    from cleaner.data.row_files import check_mapped_rows
    from cleaner.data.schema import check_rows
    from cleaner.errors import ConfigError

    check, fix = (
        (check_mapped_rows, "See dataset/README.md")
        if mapped
        else (check_rows, "Give a parquet file in verl's format")
    )
    problems = []
    for file in files:
        try:
            check(file)
        except ConfigError as error:
            message = str(error).removeprefix(f"{Path(file)}: ").rstrip(".")
            problems.append(Problem(message, f"{option} {file}", fix))
    return problems


def check_model(model: str, environment: Mapping[str, str] = os.environ) -> list[Problem]:
    """`model` is a folder with a Hugging Face model, or a hub id that can be looked up or is cached."""
    if not model:
        return [Problem("no model is given", "model", "Give a model folder or a hub id owner/name")]
    path = Path(model).expanduser()
    where = f"model {model}"
    if path.is_dir():
        missing = [] if (path / "config.json").is_file() else ["config.json"]
        if not any(next(path.glob(pattern), None) for pattern in _WEIGHTS):
            missing.append("weights (*.safetensors)")
        if not any(next(path.glob(pattern), None) for pattern in ("tokenizer*.json", "*.model", "vocab.*")):
            missing.append("tokenizer")
        if not missing:
            return []
        fix = "Give the folder of a complete Hugging Face checkpoint"
        nested = path / "huggingface"
        fix += f", perhaps {nested}" if (nested / "config.json").is_file() else ""
        return [Problem(f"the folder has no {', no '.join(missing)}", where, fix)]
    if path.exists():
        return [Problem("is a file, not a model folder", where, "Give the folder that holds config.json")]
    if model.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(model):
        return [Problem("no such folder, and not a hub id of the form owner/name", where, "Check the path")]
    if _offline(environment) and not in_hub_cache(model, environment):
        fix = "Download it first, or unset HF_HUB_OFFLINE, or give a local folder"
        return [Problem("not a folder here, not in the hub cache, and HF_HUB_OFFLINE is set", where, fix)]
    return []


def check_judge(url: str | None, timeout_s: float = JUDGE_TIMEOUT_S) -> list[Problem]:
    """A code-judge answers GET /ping with "pong" within `timeout_s` seconds, at each address in `url` (commas
    between).
    """
    addresses = [part.strip() for part in (url or "").split(",") if part.strip()]
    if not addresses:
        fix = "Start one (`code-judge serve`) and set CODE_JUDGE_URL=http://host:port"
        return [Problem("no address of a code-judge is given", "CODE_JUDGE_URL", fix)]
    return [problem for address in addresses for problem in _check_address(address, timeout_s)]


def _check_address(url: str, timeout_s: float) -> list[Problem]:
    fix = "Start it (`code-judge serve`), or correct CODE_JUDGE_URL; it is not reached through a proxy"
    try:
        status, body = http_get(url, "/ping", timeout_s)
    except ValueError as error:
        return [
            Problem(f"not an http address ({error})", f"judge {url}", "Set CODE_JUDGE_URL=http://host:port")
        ]
    except TimeoutError:
        return [Problem(f"the judge did not answer within {timeout_s:g} s", f"judge {url}", fix)]
    except (OSError, http.client.HTTPException) as error:
        return [Problem(f"the judge cannot be reached ({_reason(error)})", f"judge {url}", fix)]
    if status != 200 or body.strip().strip(b'"') != b"pong":
        what = f"something answers /ping, but it is no code-judge (status {status}, {body[:40]!r})"
        return [
            Problem(what, f"judge {url}", "Correct CODE_JUDGE_URL; perhaps another service has this port")
        ]
    return []


def check_port(port: int, host: str = "127.0.0.1") -> list[Problem]:
    """A server may listen on `port` of `host`."""
    where = f"port {port} on {host}"
    if not 0 < port < 65536:
        return [Problem("not a port number", where, "Give a number from 1 to 65535")]
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return [Problem("only root may listen there", where, "Give a port above 1023")]
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return [
                    Problem(f"in use{_port_owner(port)}", where, "Stop that process or give another port")
                ]
            return [Problem(f"cannot be listened on ({_reason(error)})", where, "Give another host or port")]
    return []


def check_output_dir(folder: str | Path, min_free_gib: float = 1.0) -> list[Problem]:
    """The output directory, or the folder that it would be made in, is writable and has `min_free_gib` GiB
    free.
    """
    path = Path(folder).expanduser().absolute()
    where = f"output directory {folder}"
    if path.exists() and not path.is_dir():
        return [Problem("is a file", where, "Give a folder")]
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        return [Problem(f"cannot be made, {parent} is a file", where, "Give another folder")]
    try:
        with tempfile.NamedTemporaryFile(dir=parent, prefix=".cleaner-probe-") as probe:
            probe.write(b"x" * 4096)
            probe.flush()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return [Problem("the disk is full", where, "Free some space or give a folder on another disk")]
        return [
            Problem(f"not writable ({_reason(error)})", where, "Change its rights or give another folder")
        ]
    free_gib = shutil.disk_usage(parent).free / 2**30
    if free_gib < min_free_gib:
        what = f"{free_gib:.1f} GiB free, at least {min_free_gib:g} GiB are needed for checkpoints"
        return [Problem(what, where, "Free some space or give a folder on another disk")]
    return []


def http_get(url: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """GET `url` + `path`, at most 64 KiB of the answer, no proxy, no redirect; (status, body).

    Raises:
        ValueError: not an http or https address.
        TimeoutError, OSError, http.client.HTTPException: no answer.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it must look like http://host:port")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout_s)
    try:
        token = os.environ.get("CODE_JUDGE_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", parts.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(65536)
    finally:
        connection.close()


def collect(checks: Sequence[Callable[[], list[Problem]]]) -> list[Problem]:
    """Run all checks and return all problems, in order."""
    return [problem for check in checks for problem in check()]


def check_training_inputs(config: Any, need_judge: bool | None = None) -> None:
    """Check what a composed training configuration points at: Python, data files, model, output directory,
    judge.

    Args:
        config: verl's configuration with the group `cleaner`, as composed by Hydra.
        need_judge: whether the judge must answer; by default it must unless DRY_RUN=1. It is looked for only
            where the tools of the run include our code interpreter, or where there are none and the reward is the
            recipes'.

    Raises:
        ConfigError: with all problems, one a line.
    """
    from omegaconf import OmegaConf

    from cleaner.data.row_files import maps_rows
    from cleaner.errors import ConfigError

    def value(path: str) -> Any:
        found = OmegaConf.select(config, path)
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found

    model = value("actor_rollout_ref.model.path")
    mapped = maps_rows(OmegaConf.select(config, "data") or {})
    checks: list[Callable[[], list[Problem]]] = [
        check_python,
        lambda: check_data(_as_list(value("data.train_files")), "data.train_files", mapped),
        lambda: check_data(_as_list(value("data.val_files")), "data.val_files", mapped),
        lambda: check_model(str(model or ""), os.environ),
        lambda: check_output_dir(value("cleaner.output_dir")),
    ]
    if need_judge is None:
        need_judge = os.environ.get("DRY_RUN") != "1"
    if need_judge and value("actor_rollout_ref.rollout.multi_turn.enable"):
        tool_config = value("actor_rollout_ref.rollout.multi_turn.tool_config_path")
        checks.append(lambda: _check_tools(tool_config))
    elif need_judge and str(value("reward.custom_reward_function.path")).endswith("cleaner.rewards.recipe"):
        settings = value("reward.custom_reward_function.reward_kwargs") or {}
        checks.append(lambda: check_judge(settings.get("judge_url") or os.environ.get("CODE_JUDGE_URL")))
    problems = collect(checks)
    if problems:
        raise ConfigError("\n  ".join(["", *map(str, problems)]) if len(problems) > 1 else str(problems[0]))


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 2 when there is a problem; all problems go to standard error, one a line."""
    parser = argparse.ArgumentParser(
        prog="python -m cleaner.preflight", description="Check a run before it starts."
    )
    parser.add_argument("--train", nargs="*", default=[], metavar="FILE", help="training rows, parquet")
    parser.add_argument("--val", nargs="*", default=[], metavar="FILE", help="validation rows, parquet")
    parser.add_argument("--model", help="a model folder, or a hub id owner/name")
    parser.add_argument("--judge-url", help="address of the code-judge that must answer, http://host:port")
    parser.add_argument(
        "--port", type=int, action="append", default=[], help="a port that must be free (repeatable)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="where the ports must be free (default: 127.0.0.1)"
    )
    parser.add_argument("--output-dir", help="must be writable and have room")
    parser.add_argument("--min-free-gib", type=float, default=1.0, help="GiB needed there (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON on standard output")
    options = parser.parse_args(arguments)

    checks: list[Callable[[], list[Problem]]] = [check_python]
    if options.train:
        checks.append(lambda: check_data(options.train, "training file"))
    if options.val:
        checks.append(lambda: check_data(options.val, "validation file"))
    if options.model is not None:
        checks.append(lambda: check_model(options.model))
    if options.judge_url is not None:
        checks.append(lambda: check_judge(options.judge_url))
    checks += [partial(check_port, port, options.host) for port in options.port]
    if options.output_dir is not None:
        checks.append(lambda: check_output_dir(options.output_dir, options.min_free_gib))

    problems = collect(checks)
    if options.json:
        print(json.dumps([vars(problem) for problem in problems], indent=2))
    for problem in problems:
        print(f"error: {problem}.", file=sys.stderr)
    return 2 if problems else 0


def _as_list(files: Any) -> list[str]:
    return (
        []
        if files is None
        else [str(files)]
        if isinstance(files, str | Path)
        else [str(file) for file in files]
    )


def _check_tools(tool_config: str | None) -> list[Problem]:
    """The judge that our code interpreter would call answers; other tools are not ours to check."""
    if not tool_config:
        return []
    import yaml

    path = Path(tool_config).expanduser()
    where = f"tool configuration {tool_config}"
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [
            Problem("no such file", where, "Correct actor_rollout_ref.rollout.multi_turn.tool_config_path")
        ]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        return [Problem(f"cannot be read ({str(error).splitlines()[0]})", where, "Correct the file")]
    tools = loaded.get("tools") if isinstance(loaded, dict) else None
    if not isinstance(tools, list):
        return [Problem("has no list `tools`", where, "Write it as verl documents tool configurations")]
    problems = []
    for tool in tools:
        if isinstance(tool, dict) and str(tool.get("class_name", "")).endswith(".CodeInterpreter"):
            settings = tool.get("config") or {}
            problems += check_judge(settings.get("judge_url") or os.environ.get("CODE_JUDGE_URL"))
    return problems


def _offline(environment: Mapping[str, str]) -> bool:
    switches = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environment.get(name, "").lower() in ("1", "true", "yes", "on") for name in switches)


def in_hub_cache(model: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a snapshot of the hub model owner/name is in the local cache."""
    home = environment.get("HF_HOME") or str(
        Path(environment.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface"
    )
    cache = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    return (cache / f"models--{model.replace('/', '--')}" / "snapshots").is_dir()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _port_owner(port: int) -> str:
    """Text ` by NAME (pid N)` where the system tells, else empty."""
    try:
        import psutil
    except ImportError:
        return ""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return (
                    f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
                    if connection.pid
                    else ""
                )
    except (psutil.Error, OSError):
        return ""
    return ""


if __name__ == "__main__":
    sys.exit(main())
