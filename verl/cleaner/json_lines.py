"""Appending to JSONL files: whole lines, whatever the text and whatever the disk."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def append_json_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Append objects to a JSONL file, all of them or none: what a full disk cuts short is taken back.

    Raises:
        OSError: the file cannot be written.
    """
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(size)
            raise
