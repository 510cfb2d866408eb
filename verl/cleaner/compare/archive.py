"""Finished runs in one file beside the results, so that another machine can check them, and go on from them.

`runs.tar.xz` holds what the account and the figures are made of: each run's `run.json`, `end.json` and `metrics.jsonl`,
and the lines of `started.jsonl`. Logs and configurations stay where the runs were made.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

from cleaner.compare.plan import Plan
from cleaner.compare.store import STARTED, Store
from cleaner.report.run_dir import METRICS_FILE

ARCHIVE = "runs.tar.xz"

_FILES = ("run.json", "end.json", METRICS_FILE)


def keep(plan: Plan, store: Store, archive: Path) -> None:
    """Write the plan's finished runs, without times and owners, beside those of other plans that are there already."""
    contents: dict[str, bytes] = {}
    if archive.is_file():
        with tarfile.open(archive) as tar:
            contents = {name: _read(tar, name) or b"" for name in tar.getnames()}
    for run in plan.runs:
        files = [store.path(run) / name for name in _FILES]
        if store.status(run) == "finished" and all(file.is_file() for file in files):
            contents |= {f"{run.name}/{file.name}": file.read_bytes() for file in files}
    entries = [json.loads(line) for line in contents.get(STARTED, b"").decode().splitlines()]
    entries += [entry for entry in store.starts(plan.runs) if entry not in entries]
    entries.sort(key=lambda entry: str(entry["time"]))
    contents[STARTED] = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    part = archive.with_name(f"{archive.name}.part")
    with tarfile.open(part, "w:xz") as tar:
        for name in sorted(contents):
            _add(tar, name, contents[name])
    part.replace(archive)


def restore(plan: Plan, store: Store, archive: Path) -> int:
    """Put the plan's runs that are in the archive, and nowhere in the store, into the store; how many they were.

    Runs of other settings are left alone. With them come the starts and ends of all the plan's runs, also of those
    that failed.
    """
    if not archive.is_file():
        return 0
    restored = 0
    with tarfile.open(archive) as tar:
        for run in plan.runs:
            path = store.path(run)
            kept = {name: _read(tar, f"{run.name}/{name}") for name in _FILES}
            about = json.loads(kept["run.json"] or b"{}")
            if path.exists() or about.get("fingerprint") != run.fingerprint:
                continue
            path.mkdir(parents=True)
            for name, content in kept.items():
                (path / name).write_bytes(content or b"")
            restored += 1
        lines = (_read(tar, STARTED) or b"").decode().splitlines()
    if restored:
        names = {run.name for run in plan.runs}
        store.adopt([entry for entry in map(json.loads, lines) if entry["run"] in names])
    return restored


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _read(tar: tarfile.TarFile, name: str) -> bytes | None:
    try:
        member = tar.extractfile(name)
    except KeyError:
        return None
    return None if member is None else member.read()
