"""Makes text that a model wrote safe to print: it cannot move the cursor, recolour or reorder the terminal.

Model output, tool output and data sets are untrusted. Characters that a terminal would obey instead of show
are replaced by something visible: C0 controls by their control picture (ESC becomes U+241B), everything else
by its escape (`\\x9b`, `\\u202e`). Newlines and tabs stay. The text keeps its meaning for a reader, and
applying the function twice changes nothing.
"""

from __future__ import annotations

import unicodedata

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_KEPT_FORMAT_CHARACTERS = frozenset({0x200C, 0x200D})  # joiners, which some scripts need


def visible(text: object) -> str:
    """`str(text)` with every character that is not plain text made visible.

    Replaced are control characters (C0, C1, DEL), format characters (bidirectional overrides, zero-width
    spaces, tags), lone surrogates, private-use characters, and line and paragraph separators. A carriage
    return before a newline is dropped.
    """
    plain = str(text).replace("\r\n", "\n")
    if plain.isascii() and plain.replace("\n", "").replace("\t", "").isprintable():
        return plain
    return "".join(map(_visible_character, plain))


def shorten(text: str, lines: int, columns: int = 2000) -> str:
    """At most `lines` lines, head and tail kept, and at most `columns` characters of each, with markers for
    what is cut.
    """
    rows = [
        row if len(row) <= columns else f"{row[:columns]} … (+{len(row) - columns})"
        for row in text.split("\n")
    ]
    if len(rows) > lines:
        head = (lines + 1) // 2
        tail = lines - head
        rows = [*rows[:head], f"… ({len(rows) - lines} more lines) …", *(rows[-tail:] if tail else [])]
    return "\n".join(rows)


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or code in _KEPT_FORMAT_CHARACTERS:
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character
