"""One line of the table."""

from __future__ import annotations

from dataclasses import dataclass

OK, FAILED, SKIPPED, NOTE = "ok", "FAILED", "skipped", "note"


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
        check: its name.
        result: `ok`; `FAILED`, which makes the whole run fail; `skipped`; `note`: a figure, neither good nor bad.
        figure: what was measured, with its unit.
        reason: what failed and why, or why it was skipped.
        advice: what to do about it.
        log: file that holds the whole output of what failed.
    """

    check: str
    result: str
    figure: str = ""
    reason: str = ""
    advice: str = ""
    log: str = ""
