"""What tells a problem from all others, in every run: verl's own `uid` is drawn anew each time."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

_DIGEST_CHARS = 12


def row_id(row: Mapping[str, Any]) -> str:
    """The id that the dataset gives a row.

    Args:
        row: a row of the dataset as verl hands it on. Its own `uid` is not looked at, for verl puts its own there.

    Returns:
        The first there is of `question_id`, `extra_info.question_id`, `extra_info.uid`, `extra_info.index` and
        `index`, as text.
    """
    extra = row.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    candidates = (
        row.get("question_id"),
        extra.get("question_id"),
        extra.get("uid"),
        extra.get("index"),
        row.get("index"),
    )
    found = next((value for value in candidates if value is not None and value != ""), 0)
    return str(found.item() if hasattr(found, "item") else found)


def prompt_digest(messages: Iterable[Any]) -> str:
    """Twelve hexadecimal digits of a prompt's SHA-256, so that files whose rows have equal ids do not mix.

    Args:
        messages: the chat, as in the row's `raw_prompt`. Of what JSON cannot hold (images) only the type counts.
    """
    text = json.dumps(list(messages), sort_keys=True, default=lambda value: type(value).__name__)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:_DIGEST_CHARS]
