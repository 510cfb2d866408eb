"""`cleaner doctor`: what is installed, what verl resolved, whether our registrations took hold, what to do.

verl logs an error of a plug-in at DEBUG level only and goes on, so nothing here trusts a log: a fresh
interpreter imports verl with the current environment and reports the *result* (`cleaner.doctor_probe`). This
module itself imports neither torch nor verl. A check that fails with level ERROR makes the exit status 1.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cleaner.preflight import Problem, check_judge, check_python, http_get

OK, INFO, WARNING, ERROR = "ok", "info", "warning", "error"

PROBE_TIMEOUT_S = 180.0
NEEDED = (
    "torch",
    "verl",
    "ray",
    "transformers",
    "tensordict",
    "TransferQueue",
    "numpy",
    "pyarrow",
    "aiohttp",
)
ENGINES = ("sglang", "vllm")
VERL_VERSION = "0.9.1"
PLUGIN = "cleaner.cpu.plugin"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's answer. `fix` is empty where there is nothing to do."""

    name: str
    level: str
    found: str
    fix: str = ""


def examine(judge_url: str | None = None, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Run all checks; takes as long as importing verl and our backend, several seconds.

    Args:
        judge_url: the code-judge to ask; CODE_JUDGE_URL of the environment by default. Where neither is
            given, a judge is not needed (the quick start starts its own).
        environment: the environment that the probe runs in.
    """
    checks = [*_python(), *_packages(), *_engines(), *_machine()]
    if _version("verl") is None or _version("torch") is None:
        checks.append(Check("verl's platform", ERROR, "not examined", "Install torch and verl first"))
    else:
        checks += probe_checks(probe(environment), environment)
    return [*checks, *judge_checks(judge_url or environment.get("CODE_JUDGE_URL"))]


def healthy(checks: list[Check]) -> bool:
    """Whether everything needed is right."""
    return all(check.level != ERROR for check in checks)


def report(checks: list[Check]) -> str:
    """The checks as text, one a line, what to do below each."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.level:<8} {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"{'':<8} {'':<{width}}  -> {check.fix}.")
    errors = sum(check.level == ERROR for check in checks)
    lines.append("All that is needed is right." if not errors else f"{errors} thing(s) to put right.")
    return "\n".join(lines)


def run(judge_url: str | None = None, as_json: bool = False) -> int:
    """Print the answer; exit status 0 when all that is needed is right, else 1."""
    checks = examine(judge_url)
    if as_json:
        print(
            json.dumps({"healthy": healthy(checks), "checks": [asdict(check) for check in checks]}, indent=2)
        )
    else:
        print(report(checks))
    return 0 if healthy(checks) else 1


def probe(environment: Mapping[str, str] = os.environ, timeout_s: float = PROBE_TIMEOUT_S) -> dict[str, Any]:
    """Import verl and our backend in a fresh interpreter; its findings, or `{"error": text}` where it broke.

    See `cleaner.doctor_probe` for the keys.
    """
    command = [sys.executable, "-m", "cleaner.doctor_probe"]
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing verl took longer than {timeout_s:g} s"}
    # verl and its dependencies may print; the probe's answer is the last line that is its own.
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("PROBE "):
            found = json.loads(line.removeprefix("PROBE "))
            return dict(found)
    last = (done.stderr.strip() or "no output").splitlines()[-1]
    return {"error": f"the probe ended with status {done.returncode}: {last}"}


def probe_checks(found: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Judge the findings of `probe`."""
    if found.get("error"):
        return [
            Check(
                "verl's platform", ERROR, str(found["error"]), "Run `python -c 'import verl'` to see it whole"
            )
        ]
    return [*_platform(found, environment), *_plugin(found, environment), *_backend(found), *_devices(found)]


def judge_checks(url: str | None) -> list[Check]:
    """What the code-judge at each address in `url` (commas between) says: live workers, queue, isolation."""
    if not url:
        return [Check("code-judge", INFO, "CODE_JUDGE_URL is not set; the quick start starts its own")]
    return [check for address in url.split(",") for check in _judge_checks(address.strip())]


def _judge_checks(url: str) -> list[Check]:
    problems = check_judge(url)
    if problems:
        return [_from_problem("code-judge", problem) for problem in problems]
    try:
        status, body = http_get(url, "/status", 3.0)
        answer = json.loads(body)
        if status != 200 or not isinstance(answer, dict):
            raise ValueError(f"status {status}")
    except (OSError, ValueError) as error:
        return [
            Check(
                "code-judge",
                ERROR,
                f"{url} answers /ping but not /status ({error})",
                "Look at the judge's log",
            )
        ]
    workers = answer.get("num_workers")
    found = f"{url} answers, {workers} workers, {answer.get('queue')} jobs queued"
    checks = [Check("code-judge", OK, found)]
    if not workers:
        checks = [
            Check("code-judge", ERROR, found, "Start workers: `code-judge serve`, or `python run_workers.py`")
        ]
    return [*checks, *_isolation(answer)]


def _python() -> list[Check]:
    version = f"{platform.python_version()} ({sys.executable})"
    problems = check_python()
    return [_from_problem("python", problems[0])] if problems else [Check("python", OK, version)]


def _packages() -> list[Check]:
    """Needed packages: installed, and at a version that the distribution `cleaner` allows."""
    allowed = _requirements()
    checks = []
    if not allowed:
        fix = "Install it: `pip install -e verl[cpu]` in the clone"
        checks.append(
            Check("cleaner", ERROR, "the distribution is not installed (its entry points are missing)", fix)
        )
    for name in dict.fromkeys((*NEEDED, *allowed)):
        version = _version(name)
        specifier = allowed.get(name, f"=={VERL_VERSION}" if name == "verl" else "")
        if version is None:
            needed = f"{name}{specifier}"
            checks.append(Check(name, ERROR, "not installed", f"Install it: `pip install '{needed}'`"))
        elif not _fits(version, specifier):
            found = f"{version}, but {specifier} is needed"
            checks.append(Check(name, ERROR, found, f"Install it: `pip install '{name}{specifier}'`"))
        elif name in NEEDED:
            checks.append(Check(name, OK, f"{version} ({specifier} needed)" if specifier else version))
    return checks


def _engines() -> list[Check]:
    installed = {name: version for name in ENGINES if (version := _version(name))}
    if installed:
        return [Check(name, OK, version) for name, version in installed.items()]
    return [
        Check(
            "sglang, vllm",
            INFO,
            "not installed; they are for GPUs, the rollout server `hf_server` needs neither",
        )
    ]


def _machine() -> list[Check]:
    cores, total, limit = len(os.sched_getaffinity(0)), _memory_gib(), _cgroup_memory_gib()
    memory = (
        f"{total:.1f} GiB of memory"
        if limit is None or limit > total
        else f"{limit:.1f} GiB of memory (cgroup limit)"
    )
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return [Check("machine", OK, f"{cores} cores, {memory}, {free:.1f} GiB free in the current folder")]


def _platform(found: Mapping[str, Any], environment: Mapping[str, str]) -> list[Check]:
    name, wanted = found.get("platform"), environment.get("VERL_PLATFORM", "").strip().lower()
    text = (
        f"{name} (VERL_PLATFORM={wanted or 'not set'}; registered: {', '.join(found.get('registered', []))})"
    )
    if found.get("platform_error"):
        return [
            Check("verl's platform", ERROR, str(found["platform_error"]), "Correct or unset VERL_PLATFORM")
        ]
    if name != "cpu" and not found.get("gpus"):
        return [Check("verl's platform", ERROR, text, "There is no GPU here: export VERL_PLATFORM=cpu")]
    if name == "cpu" and found.get("gpus"):
        return [
            Check(
                "verl's platform", WARNING, f"{text}; there are GPUs", "Unset VERL_PLATFORM to train on them"
            )
        ]
    return [Check("verl's platform", OK, text)]


def _plugin(found: Mapping[str, Any], environment: Mapping[str, str]) -> list[Check]:
    if PLUGIN not in found.get("entry_points", []):
        fix = "Install the distribution: `pip install -e verl[cpu]` in the clone"
        return [Check("plug-in", ERROR, f"no entry point {PLUGIN} in the group verl.plugins", fix)]
    if found.get("plugin_error"):
        fix = "verl hides this error; see it whole with `python -c 'import cleaner.cpu.plugin'`"
        return [Check("plug-in", ERROR, f"{PLUGIN} does not load: {found['plugin_error']}", fix)]
    if not found.get("plugin_loaded"):
        policy = environment.get("VERL_USE_EXTERNAL_PLUGINS", "auto")
        fix = "Unset VERL_USE_EXTERNAL_PLUGINS"
        return [
            Check("plug-in", ERROR, f"verl did not load {PLUGIN} (VERL_USE_EXTERNAL_PLUGINS={policy})", fix)
        ]
    return [Check("plug-in", OK, f"{PLUGIN} loaded by verl, platform `cpu` registered")]


def _backend(found: Mapping[str, Any]) -> list[Check]:
    if found.get("backend_error"):
        fix = "See it whole with `python -c 'import cleaner.registrations'`"
        return [Check("registrations", ERROR, f"do not load: {found['backend_error']}", fix)]
    missing = [label for label, there in found.get("backend", {}).items() if not there]
    if missing:
        return [
            Check(
                "registrations",
                ERROR,
                f"missing: {', '.join(missing)}",
                "Check that verl is at the pinned version",
            )
        ]
    return [Check("registrations", OK, ", ".join(found.get("backend", {})))]


def _devices(found: Mapping[str, Any]) -> list[Check]:
    gpus = found.get("gpus") or []
    return [Check("GPUs", OK if gpus else INFO, f"{len(gpus)}: {', '.join(gpus)}" if gpus else "none")]


def _isolation(answer: Mapping[str, Any]) -> list[Check]:
    isolation = answer.get("isolation")
    if isolation is None:
        return [Check("judge's isolation", INFO, "not told by /status")]
    if not isinstance(isolation, Mapping):
        return [Check("judge's isolation", INFO, _plain(isolation))]
    # One plan, or where workers differ, a plan by the worker's name.
    plans = [plan for plan in isolation.values() if isinstance(plan, Mapping)] or [isolation]
    found = "; ".join(", ".join(f"{name} {_plain(there)}" for name, there in plan.items()) for plan in plans)
    if any(plan.get("safe") is False for plan in plans):
        fix = "Do not run a model's code on a machine that holds anything of value"
        return [Check("judge's isolation", WARNING, found, fix)]
    return [Check("judge's isolation", OK, found)]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _from_problem(name: str, problem: Problem) -> Check:
    return Check(name, ERROR, f"{problem.where}: {problem.what}", problem.fix)


def _requirements() -> dict[str, str]:
    """Version specifiers that the installed distribution `cleaner` declares, the extra `cpu` where no engine
    is there.
    """
    from packaging.requirements import Requirement

    extra = "" if any(map(_version, ENGINES)) else "cpu"
    try:
        declared = importlib.metadata.requires("cleaner") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    parsed = (Requirement(text) for text in declared)
    return {
        r.name: str(r.specifier) for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _cgroup_memory_gib() -> float | None:
    for path in _cgroup_limits():
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text) / 2**30
    return None


def _cgroup_limits() -> Iterator[Path]:
    yield Path("/sys/fs/cgroup/memory.max")
    yield Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
