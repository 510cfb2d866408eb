"""Trajectories that failed by an exception: what is known of each, and when there are too many of them to go on.

`cleaner.rollout_worker` catches the exception and leaves a failure row in the TransferQueue. Here the trainer takes
these rows out of a batch, writes each to `failures.jsonl`, counts them, and ends the run in strict mode, above a share,
or where nothing is left. The file has one JSON object a line, one line a failed trajectory:

- `schema`: 1.
- `phase`, `step`: `train` or `val`; the training step, 0 for the validation before training.
- `index`, `session`, `uid`: the dataset row; which of the group's samples; the group.
- `type`: class of the exception, with its module unless it is Python's own. Where a Ray task or actor raised it, of the
  cause.
- `message`: its text, at most 2,000 characters.
- `where`: `module:line in function` of CLEANER's innermost frame, else of the innermost one. Where another process
  raised it, the file instead of the module.
- `traceback`: at most 12,000 characters, head and tail. Null where a failure of the same type and place stands above it
  in the same batch.

A line of type `unrecorded` stands for all trajectories of a batch of which nothing arrived; `index`, `session` and
`uid` are null, and `message` says how many they are. Text may be the model's own and is untrusted: escape it before you
show it.
"""

import os
import re
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import transfer_queue as tq
from ray.exceptions import RayTaskError
from transfer_queue import KVBatchMeta

from cleaner.errors import TooManyFailures
from cleaner.json_lines import append_json_lines
from cleaner.trajectory_rows import column_values

SCHEMA_VERSION = 1
# The tag of a failure row, and the key of its cause in `extra_fields`.
FAILED_TAG = "failed"
FAILURE_FIELD = "failure"
UNRECORDED = "unrecorded"

_MESSAGE_CHARS, _TRACEBACK_CHARS, _ENTRY_CHARS, _QUOTED_CHARS = 2_000, 12_000, 1_000, 300
_PACKAGE = __name__.partition(".")[0]
# Every exception comes through this frame of ours, so it tells nothing.
_BOUNDARY = "cleaner.rollout_worker"
# A frame in the text of a traceback, which is all that another process sends of one.
_FRAME_LINE = re.compile(
    r'^  File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)$', re.MULTILINE
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Failure:
    """One failed trajectory; the fields are those of a line of `failures.jsonl`, see the module."""

    phase: str
    step: int
    index: int | None
    session: int | None
    uid: str | None
    type: str
    message: str
    where: str
    traceback: str | None


def describe_exception(error: BaseException) -> dict[str, str]:
    """`type`, `message`, `where` and `traceback` of an exception, as text that every encoding and log can hold.

    Never raises: an exception whose `str` raises, is huge or holds lone surrogates is described too.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        origin = error.cause
        trace = _printable(_COLOUR.sub("", _text_of(error)))
        where = _where_in_text(trace) or _where(error)
    else:
        origin, trace, where = error, _printable(_traceback_of(error)), _where(error)
    return {
        "type": _printable(_type_name(origin)),
        "message": _bounded(_printable(_text_of(origin)), _MESSAGE_CHARS),
        "where": _printable(where),
        "traceback": _bounded(trace, _TRACEBACK_CHARS),
    }


def split_failures(batch: KVBatchMeta) -> tuple[KVBatchMeta, list[Failure]]:
    """Take the failure rows out of a batch and out of the TransferQueue. Without any, this is one look at the tags.

    Returns:
        The other rows in their order, and the failures, sorted by dataset row and sample.
    """
    failed = {key: tag for key, tag in zip(batch.keys, batch.tags, strict=True) if tag.get(FAILED_TAG)}
    if not failed:
        return batch, []
    keys = list(failed)
    rows = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["index", "extra_fields"]
    )
    indices, extras = column_values(rows["index"]), column_values(rows["extra_fields"])
    failures = []
    for (key, tag), index, extra in zip(failed.items(), indices, extras, strict=True):
        uid, session, _ = key.rsplit("_", 2)
        failures.append(
            Failure(
                phase="val" if batch.partition_id == "val" else "train",
                step=int(tag["global_steps"]),
                index=int(index),
                session=int(session),
                uid=uid,
                **extra[FAILURE_FIELD],
            )
        )
    tq.kv_clear(keys=keys, partition_id=batch.partition_id)
    rest = batch.select_keys([key for key in batch.keys if key not in failed])
    return rest, sorted(failures, key=lambda failure: (failure.index, failure.session))


def count_trajectories(batch: KVBatchMeta) -> int:
    """Number of real trajectories in a batch: one that gave several rows counts once, padding not at all."""
    real = (key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False))
    return len({key.rsplit("_", 1)[0] for key in real})


class FailureMonitor:
    """Writes failures down, counts them, and says when there are too many.

    Args:
        path: the JSONL file; it is made with the first failure. Lines of earlier runs are kept.
        max_share: in [0, 1]; a larger share of failed trajectories ends the run.
        strict: the first failed trajectory ends the run.
    """

    def __init__(self, path: Path, max_share: float, strict: bool) -> None:
        self.path = path
        self._max_share = max_share
        self._strict = strict
        self._counted: tuple[str, int] | None = None
        self._counts: Counter[str] = Counter()
        self._expected = 0

    def observe(
        self, phase: str, step: int, failures: Sequence[Failure], expected: int, arrived: int | None = None
    ) -> dict[str, float]:
        """Take note of one batch. Batches of one phase and step that follow each other are added up.

        Args:
            phase, step: of the batch.
            failures: what `split_failures` took out of it.
            expected: trajectories that were asked for.
            arrived: trajectories that are left (`count_trajectories`); None: all but the failures. What is missing
                without a failure row is counted as `unrecorded`.

        Returns:
            `rollout/failed_trajectories`, `rollout/failed_share`, and `rollout/failure/<type>` for each type there is.

        Raises:
            TooManyFailures: in strict mode at the first failure; where the share is above `max_share`; where nothing of
                this batch is left. The failures are written first.
            OSError: the file cannot be written; the message names it, and what failed.
        """
        if (phase, step) != self._counted:
            self._counted, self._counts, self._expected = (phase, step), Counter(), 0
        arrived = expected - len(failures) if arrived is None else arrived
        # A row of the dataset may ask for a number of its own.
        expected = max(expected, arrived + len(failures))
        missing = max(0, expected - arrived - len(failures))
        noted = [*failures, *_unrecorded(phase, step, missing)]
        if noted:
            self._write(noted)
        self._counts.update(failure.type for failure in failures)
        if missing:
            self._counts[UNRECORDED] += missing
        self._expected += expected
        failed = self._counts.total()
        share = failed / self._expected if self._expected else 0.0
        if noted and (reason := self._reason_to_stop(share, nothing_left=arrived <= 0)):
            raise TooManyFailures(
                f"{phase}, step {step}: {failed} of {self._expected} trajectories failed ({share:.0%}). "
                f"{_summary(noted)}. {self.path} tells them all. {reason}"
            )
        return {
            "rollout/failed_trajectories": failed,
            "rollout/failed_share": share,
            **{f"rollout/failure/{_metric_name(kind)}": n for kind, n in sorted(self._counts.items())},
        }

    def _reason_to_stop(self, share: float, nothing_left: bool) -> str | None:
        """Why the run ends, and what to do about it; None where it goes on."""
        fix = "Remove the cause and resume from the last checkpoint"
        if nothing_left:
            return f"Nothing is left of the batch. {fix}."
        if self._strict:
            return f"cleaner.failures.strict=true ends the run at the first one. {fix}, or set it to false."
        if share > self._max_share:
            return f"That is more than cleaner.failures.max_share={self._max_share:g}. {fix}, or raise it."
        return None

    def _write(self, failures: Sequence[Failure]) -> None:
        lines, told = [], set()
        for failure in failures:
            line = {"schema": SCHEMA_VERSION, **asdict(failure)}
            # A fault that hits every trajectory of a step would else fill the disk with the same pages.
            if (failure.type, failure.where) in told:
                line["traceback"] = None
            told.add((failure.type, failure.where))
            lines.append(line)
        try:
            append_json_lines(self.path, lines)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write failed trajectories to {self.path}: {error.strerror}. Free the disk, then resume from "
                f"the last checkpoint. What was to be written: {_summary(failures)}",
            ) from error


def _unrecorded(phase: str, step: int, missing: int) -> list[Failure]:
    if not missing:
        return []
    message = (
        f"{missing} trajectories are missing and no worker told why; see the log of the agent-loop workers"
    )
    return [Failure(phase, step, None, None, None, UNRECORDED, message, "", None)]


def _summary(failures: Sequence[Failure]) -> str:
    """The most frequent failure: type, place and message; the message escaped, for it may be a model's text."""
    kinds = [(failure.type, failure.where) for failure in failures]
    (kind, where), count = Counter(kinds).most_common(1)[0]
    message = _bounded(failures[kinds.index((kind, where))].message, _QUOTED_CHARS)
    return f"Most frequent ({count} of {len(kinds)}): {kind}{f' at {where}' if where else ''}: {message!a}"


def _metric_name(type_name: str) -> str:
    """Loggers take letters, digits and a few signs; the name of a local class has `<locals>` in it."""
    return re.sub(r"[^\w.\-]", "_", type_name)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"(no text: its __str__ raised {_type_name(second)})"


def _traceback_of(error: BaseException) -> str:
    try:
        entries = traceback.TracebackException.from_exception(error).format()
        # Each entry is bounded, so that a huge message does not push the frames out.
        return "".join(_bounded(entry, _ENTRY_CHARS) for entry in entries)
    except Exception as second:
        return f"(no traceback: formatting it raised {_type_name(second)})"


def _where(error: BaseException) -> str:
    frames = [
        (str(frame.f_globals.get("__name__")), line, frame.f_code.co_qualname)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    beyond = [frame for frame in frames if frame[0] != _BOUNDARY] or frames
    ours = [frame for frame in beyond if frame[0].partition(".")[0] == _PACKAGE]
    if not frames:
        return ""
    module, line, function = (ours or beyond)[-1]
    return f"{module}:{line} in {function}"


def _where_in_text(trace: str) -> str | None:
    frames = [match.groups() for match in _FRAME_LINE.finditer(trace)]
    if not frames:
        return None
    folder = f"{Path(__file__).parent}{os.sep}"
    file, line, function = ([frame for frame in frames if frame[0].startswith(folder)] or frames)[-1]
    return f"{file}:{line} in {function}"


def _printable(text: str) -> str:
    """Lone surrogates, which no encoding can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _bounded(text: str, limit: int) -> str:
    """Head and tail of a text, `limit` characters of it together, with a marker for what is left out."""
    if len(text) <= limit:
        return text
    head = limit // 2
    return f"{text[:head]} … ({len(text) - limit} characters left out) … {text[head - limit :]}"
