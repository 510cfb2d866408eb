"""Writes the HTML report: one file that holds its style, its script and its data, and asks the network for nothing.

What a model wrote is untrusted. It stands in the file as JSON in an element that no browser runs, with `<`, `>`, `&`
and the line separators of JavaScript escaped, so that nothing in it can end that element; the script shows it by
`textContent` alone. A content security policy is the second line: it allows one script and one style, by their hashes,
no address of any kind, and no text to be parsed as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from cleaner.report.page_data import Progress, page_data
from cleaner.report.run_dir import RunDirectory

PAGE_FILE = "report.html"
# A page stays below 5 MB.
ROOM_BYTES = 4_500_000

_SCRIPTS = (
    *("elements.js", "data.js", "chart.js", "curves.js", "overview.js", "filters.js"),
    *("difference.js", "turn_text.js", "repair.js", "trajectory.js", "list.js", "keys.js", "main.js"),
)


def write_page(
    runs: Sequence[RunDirectory],
    out: Path | None = None,
    room: int = ROOM_BYTES,
    seed: int = 0,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the report of one or several runs, whole or not at all; returns its path.

    Args:
        runs: at least one.
        out: the file; by default `report.html` in the first run's folder. Its folder must exist.
        room: bytes for the trajectories; larger runs are sampled, and the page says so.
        seed: of the sample.
        names: of the runs; by default their folders'.
        progress: is told how far reading is.

    Raises:
        OSError: a file cannot be read or written; an older report is then still whole.
    """
    target = out or runs[0].path / PAGE_FILE
    draft = target.with_name(target.name + ".tmp")
    text = page_text(page_data(runs, room, seed, names, progress))
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def page_text(data: dict[str, Any]) -> str:
    """The page with `data` (of `page_data`) in it."""
    style = _asset("page.css")
    script = "(() => {\n'use strict';\n" + "\n".join(map(_asset, _SCRIPTS)) + "\n})();\n"
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    page = _asset("page.html")
    # Data last: nothing in it is searched for a place to fill.
    for place, text in (
        ("POLICY", policy),
        ("STYLE", style),
        ("SCRIPT", script),
        ("DATA", json_for_page(data)),
    ):
        before, _, after = page.partition("{{" + place + "}}")
        page = before + text + after
    return page


def json_for_page(value: Any) -> str:
    """`value` as JSON that cannot leave a script element, whatever texts it holds.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # None of these has a meaning in JSON outside of a string, and in a string the escape means the same.
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return files("cleaner.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
