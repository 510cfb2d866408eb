"""LiveCodeBench's custom-evaluation file: `[{"question_id": ..., "code_list": [...]}, ...]`.

Its `custom_evaluator` sorts the entries by `str(question_id)` and sets them beside the release's questions, sorted
alike. It names a question only in that order, so it refuses a file whose number of entries is not the release's, and
would grade the wrong programs if an entry were missing and another too many. It also wants as many programs of every
question (`lcb_runner/runner/custom_evaluator.py` and `evaluation/compute_code_generation_metrics.py`, July 2025).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cleaner.errors import ConfigError
from cleaner.evaluation.code_blocks import last_python_block
from cleaner.evaluation.samples import Evaluation, Sample

_LIVECODEBENCH = re.compile(r"livecodebench|(?:^|[^a-z])lcb(?:[^a-z]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Export:
    """The file's entries, sorted by question, and what its reader should know.

    Attributes:
        missing: questions of the release without a sample. extra: questions that the release does not have; they are
            left out. without_code: programs that are the empty string.
        padded: programs added, empty ones, where a question has fewer samples than another.
    """

    entries: list[dict[str, object]]
    missing: list[str]
    extra: list[str]
    without_code: int
    padded: int


def export_entries(
    evaluation: Evaluation,
    data_source: str | None = None,
    questions: Iterable[str] | None = None,
    fill: bool = False,
) -> Export:
    """The entries of an evaluation, programs in the order of the sample numbers.

    Args:
        data_source: of the samples; None: the one there is, or the one that names LiveCodeBench.
        questions: ids of all questions of the release; None: it is not known which there are.
        fill: give missing questions empty programs.

    Raises:
        ConfigError: no such data source, none that can be told, or samples without a response.
    """
    source = _source(evaluation, data_source)
    programs: dict[str, list[str]] = {}
    for samples in evaluation.problems[source].values():
        question = samples[0].id
        if question in programs:
            raise ConfigError(
                f"{evaluation.path}: question {question} has samples of several prompts. Evaluate into a new folder."
            )
        programs[question] = [_program(evaluation, sample) for sample in samples]
    known = None if questions is None else set(questions)
    missing = [] if known is None else sorted(known - programs.keys())
    extra = [] if known is None else sorted(programs.keys() - known)
    for question in extra:
        del programs[question]
    if fill:
        programs.update({question: [] for question in missing})
    most = max(map(len, programs.values()), default=0)
    padded = sum(most - len(codes) for codes in programs.values())
    entries: list[dict[str, object]] = [
        {"question_id": question, "code_list": codes + [""] * (most - len(codes))}
        for question, codes in sorted(programs.items())
    ]
    without_code = sum(code == "" for codes in programs.values() for code in codes)
    return Export(entries, missing, extra, without_code, padded)


def write_entries(entries: Sequence[dict[str, object]], out: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: the disk is full or the folder not writable.
    """
    draft = out.with_name(f".{out.name}.tmp")
    try:
        draft.write_text(json.dumps(list(entries), indent=1), encoding="ascii")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)


def read_questions(path: Path) -> list[str]:
    """Question ids from a file: a JSON list of ids or of objects with `question_id`, the same as JSON lines, parquet
    with a column `question_id`, or one id a line.

    Raises:
        ConfigError: no such file, no id in it, or an entry without one: file and entry.
    """
    try:
        if path.suffix == ".parquet":
            return _parquet_questions(path)
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    try:
        loaded = json.loads(text)
        entries = loaded if isinstance(loaded, list) else [loaded]
    except ValueError:
        entries = [_entry(line) for line in text.splitlines() if line.strip()]
    ids = [_question_id(path, number, entry) for number, entry in enumerate(entries, start=1)]
    if not ids:
        raise ConfigError(f"{path}: holds no question id.")
    return ids


def _parquet_questions(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [
            str(value) for value in pq.read_table(path, columns=["question_id"])["question_id"].to_pylist()
        ]
    except (pa.ArrowException, KeyError) as error:
        raise ConfigError(
            f"{path}: no readable column 'question_id' ({str(error).splitlines()[0]})"
        ) from error


def _entry(line: str) -> object:
    try:
        return json.loads(line) if line.lstrip().startswith(("{", '"')) else line.strip()
    except ValueError:
        return line.strip()


def _question_id(path: Path, number: int, entry: object) -> str:
    found = entry.get("question_id") if isinstance(entry, dict) else entry
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        raise ConfigError(f"{path}, entry {number}: no question id.")
    return str(found)


def _source(evaluation: Evaluation, wanted: str | None) -> str:
    names = sorted(evaluation.problems)
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"{evaluation.path}: no data source {wanted!r}; there is {', '.join(names)}.")
        return wanted
    fitting = names if len(names) == 1 else [name for name in names if _LIVECODEBENCH.search(name)]
    if len(fitting) != 1:
        raise ConfigError(
            f"{evaluation.path}: which data source is LiveCodeBench's? Choose with --data-source: {', '.join(names)}."
        )
    return fitting[0]


def _program(evaluation: Evaluation, sample: Sample) -> str:
    if sample.response is None:
        raise ConfigError(
            f"{evaluation.path}: sample {sample.number} of question {sample.id} has no key 'response'."
        )
    return last_python_block(sample.response)
