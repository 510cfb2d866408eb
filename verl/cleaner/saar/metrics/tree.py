"""Python code as the list of its syntax tree's nodes, for the metric `ast`."""

import ast
import unicodedata
import warnings
from typing import TypeGuard

# Python's parser holds the GIL: 5 µs for each character at worst ("a\n" * n), so at most 0.1 s; 10 ms for usual code.
MAX_CHARS = 20_000
# The parser normalises names, which is quadratic in a run of combining marks: 2 s for 20,000 of them. No language needs
# more than 30 (Unicode Standard Annex 15, stream-safe text).
_MOST_MARKS = 30
# A name of its own, by which the parser's warnings about the model's code are told from any other and kept off the log.
_FILE = "<compared code>"
warnings.filterwarnings("ignore", module=r"<compared\ code>")
# They say nothing that their parts do not say; `arguments` does where there are any.
_SILENT = (ast.Expr, ast.arguments)
_SKIPPED_FIELDS = frozenset({"ctx", "kind", "type_comment"})
_BLOCKS = frozenset({"body", "orelse", "finalbody", "handlers", "cases"})
# What is in these could be taken for what is in a field beside them.
_NAMED_FIELDS = frozenset({
    "orelse", "finalbody", "handlers", "guard", "decorator_list", "returns", "posonlyargs", "vararg", "kwonlyargs",
    "kwarg", "defaults", "kw_defaults", "lower", "upper", "step",
})  # fmt: skip
_BLOCK_OWNERS = (ast.stmt, ast.excepthandler, ast.match_case)
_BLOCK_END = "end"


def tree_labels(code: str) -> list[str] | None:
    """One label for each node in the order of the source, and one for the end of each block.

    A label names the node's class, its operators, the names and constants that it holds, and the lengths of its lists:
    `Name x`, `BinOp Add`, `Constant int 0x1`, `Call 2` (arguments). So formatting, comments and superfluous parentheses
    do not count, but names, values and nesting do: renaming a variable changes as many labels as it has mentions.

    Returns:
        None if the code does not parse, or could take the parser long: too many characters or accents.
    """
    if len(code) > MAX_CHARS or (not code.isascii() and _has_long_run_of_marks(code)):
        return None
    try:
        statements = ast.parse(code, filename=_FILE).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    labels: list[str] = []
    # Not recursive: a tree may be nested as deeply as the parser allows.
    pending: list[ast.AST | str] = [*reversed(statements)]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            labels.append(node)
            continue
        words, parts = _read(node)
        if len(words) > 1 or not isinstance(node, _SILENT):
            labels.append(" ".join(words))
        pending.extend(reversed(parts))
    return labels


def _read(node: ast.AST) -> tuple[list[str], list[ast.AST | str]]:
    """The words of a node's own label, and what comes after it."""
    words = [type(node).__name__]
    if isinstance(node, ast.Constant):
        return [*words, type(node.value).__name__, _text(node.value)], []
    parts: list[ast.AST | str] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name in _SKIPPED_FIELDS or value is None or value == []:
            continue
        if name in _NAMED_FIELDS and isinstance(value, list | ast.AST):
            parts.append(name)
        is_block = name in _BLOCKS and isinstance(node, _BLOCK_OWNERS)
        items = value if isinstance(value, list) else [value]
        if items is value and not is_block and _has_parts(items[-1]):
            words.append(str(len(items)))
        for item in items:
            if _has_parts(item):
                parts.append(item)
            elif isinstance(item, ast.AST):
                words.append(type(item).__name__)
            elif item is None:  # `**` in a dictionary, a keyword-only parameter without default
                parts.append("None")
            else:
                words.append(_text(item))
        if is_block:
            parts.append(_BLOCK_END)
    return words, parts


def _has_long_run_of_marks(code: str) -> bool:
    """Whether more than `_MOST_MARKS` combining marks follow each other."""
    kinds = "".join("m" if unicodedata.combining(character) else "-" for character in code)
    return "m" * (_MOST_MARKS + 1) in kinds


def _has_parts(item: object) -> TypeGuard[ast.AST]:
    """Whether it is a node other than an operator."""
    if not isinstance(item, ast.AST):
        return False
    return bool(item._fields) or isinstance(item, ast.stmt)


def _text(value: object) -> str:
    # Decimal digits of huge integers are refused; hexadecimal ones are not.
    return hex(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
