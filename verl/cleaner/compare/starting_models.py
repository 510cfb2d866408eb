"""The models that a comparison's runs start from, kept beside its results: `models/<task>.tar.xz`.

The same cold start gives another model on another kind of processor: rounding differs, and some hundred steps make
much of that. Runs from two models are two experiments. So the first model of a task is kept, and whoever goes on with
the comparison, on whatever machine, starts from it. One too large for a repository is only told by its digest.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from hashlib import sha256
from pathlib import Path

from cleaner.errors import ConfigError

MODELS = "models"

_WEIGHTS = "model.safetensors"
_LARGEST_BYTES = 64 * 2**20


def digest(model: Path) -> str:
    """What the model is told by: 16 hex digits, of its weights."""
    return sha256((model / _WEIGHTS).read_bytes()).hexdigest()[:16]


def keep_model(task: str, model: Path, results: Path) -> None:
    """Pack the folder `model` as the one from which the runs of `task` start, unless one is kept already, or its
    weights take more than 64 MiB."""
    archive = _archive(task, results)
    if archive.is_file() or (model / _WEIGHTS).stat().st_size > _LARGEST_BYTES:
        return
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    with tarfile.open(part, "w:xz") as tar:
        for file in sorted(path for path in model.iterdir() if path.is_file()):
            entry = tarfile.TarInfo(file.name)
            entry.size = file.stat().st_size
            tar.addfile(entry, io.BytesIO(file.read_bytes()))
    part.replace(archive)


def kept_model(task: str, results: Path, cache: Path) -> Path | None:
    """The folder of the kept model, unpacked in `cache` when it is first asked for; None: none is kept.

    Raises:
        ConfigError: the archive cannot be unpacked.
    """
    archive = _archive(task, results)
    if not archive.is_file():
        return None
    folder = cache / f"kept-{task}-{sha256(archive.read_bytes()).hexdigest()[:10]}"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(part, filter="data")
        except (OSError, EOFError, tarfile.TarError) as error:
            raise ConfigError(
                f"{archive} cannot be unpacked: {error}. Take it from the repository again."
            ) from error
        part.replace(folder)
    return folder


def _archive(task: str, results: Path) -> Path:
    return results / MODELS / f"{task}.tar.xz"
