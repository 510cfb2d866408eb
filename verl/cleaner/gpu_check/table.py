"""The rows as one table, and as JSON."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cleaner.gpu_check.row import FAILED, Row


def failed(rows: Sequence[Row]) -> bool:
    """Whether any check failed."""
    return any(row.result == FAILED for row in rows)


def as_text(rows: Sequence[Row], width: int | None = None) -> str:
    """Columns check, result, figure; below a row what failed, and what to do.

    Args:
        width: of the terminal in columns; default: what it is.
    """
    width = width or max(60, min(shutil.get_terminal_size((120, 24)).columns, 140))
    headings = ("check", "result", "figure")
    first = max(len(row.check) for row in [*rows, Row(*headings)])
    second = max(len(row.result) for row in [*rows, Row(*headings)])
    indent = " " * (first + second + 4)
    lines = [f"{headings[0]:<{first}}  {headings[1]:<{second}}  {headings[2]}"]
    lines.append("-" * len(indent + headings[2]))
    for row in rows:
        texts = [row.figure, row.reason, f"-> {row.advice}." if row.advice else ""]
        texts.append(f"log: {row.log}" if row.log else "")
        told = [text for text in texts if text]
        wrapped = [
            line
            for text in told
            for line in textwrap.wrap(text, max(30, width - len(indent)), break_on_hyphens=False)
        ]
        lines.append(
            f"{row.check:<{first}}  {row.result:<{second}}  {wrapped[0] if wrapped else ''}".rstrip()
        )
        lines += [indent + line for line in wrapped[1:]]
    return "\n".join(lines)


def write_json(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """`{..about, "failed": bool, "rows": [...]}`, replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    content = {**about, "failed": failed(rows), "rows": [asdict(row) for row in rows]}
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)
