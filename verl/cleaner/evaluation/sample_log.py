"""The file of validation samples: whole groups of lines, and which problems it holds already."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cleaner.json_lines import append_json_lines

SAMPLES_FILE = "samples.jsonl"
ProblemKey = tuple[str, str, str]


def problem_key(line: Mapping[str, Any]) -> ProblemKey:
    """Data source, id and digest of the prompt: what a sample is a sample of."""
    return str(line["data_source"]), str(line["id"]), str(line["prompt_digest"])


class SampleLog:
    """Appends samples to `path`; all samples of a problem at once, or none.

    A run that was killed may leave half a line behind: it is taken away before the first line is added. A problem may
    be sampled twice (a sample of it failed the first time); the later line of an equal sample counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mended = False

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Write lines of `cleaner.evaluation.sample_lines`.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        if not lines:
            return
        try:
            self._mend()
            append_json_lines(self.path, lines)
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write samples to {self.path}: {error.strerror}. Free the disk, then run it again: what is "
                "written is not sampled again",
            ) from error

    def lines(self, step: int) -> list[dict[str, Any]]:
        """The samples of a step, the later of equal ones, in no particular order; without their texts, which would take
        the memory of the whole file.
        """
        found: dict[tuple[ProblemKey, int], dict[str, Any]] = {}
        for line in self._read():
            if line.get("step") == step:
                texts = ("prompt", "response")
                found[problem_key(line), int(line["sample"])] = {
                    k: v for k, v in line.items() if k not in texts
                }
        return list(found.values())

    def finished(self, step: int) -> dict[ProblemKey, int]:
        """For each problem of a step how many of its samples are there; those left out of the scores do not count."""
        counts: dict[ProblemKey, int] = {}
        for line in self.lines(step):
            counts[problem_key(line)] = counts.get(problem_key(line), 0) + (line["left_out"] is None)
        return counts

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict) and {"data_source", "id", "prompt_digest", "sample"} <= line.keys():
                    yield line

    def _mend(self) -> None:
        """Cut off what follows the last line end."""
        if self._mended or not self.path.is_file():
            self._mended = True
            return
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            position = end
            while position > 0:
                start = max(0, position - 65536)
                file.seek(start)
                found = file.read(position - start).rfind(b"\n")
                if found >= 0:
                    position = start + found + 1
                    break
                position = start
            if position < end:
                file.truncate(position)
        self._mended = True
