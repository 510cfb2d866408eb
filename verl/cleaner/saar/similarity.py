"""How alike the failing calls and the accepted ones are: decides between a shallow and a deep repair.

Each metric compares what it understands, never a tool call's JSON wrapper: wrapped, two unrelated one-liners look 87 %
alike instead of 18 %. The order is always (failed, accepted); the ratios are not symmetric.

metric   compares                               by
difflib  the code, as characters                difflib's ratio, `autojunk=False`: the paper's, and the default
token    the code, as lexical tokens            the same ratio; white space and comments do not count
ast      Python code, as nodes of its tree      the same ratio; `token` where a side does not parse
json     parsed arguments                       paths and values (`metrics.fields`); words where a side is no JSON
text     values of the arguments, as words      the same ratio; case and white space do not count

Where a call has no argument `code`, the first three compare its canonical JSON.
"""

from collections.abc import Sequence

from cleaner.saar.metrics.arguments import code_of, comparable_text, parsed_arguments
from cleaner.saar.metrics.fields import field_similarity
from cleaner.saar.metrics.lexemes import lexemes
from cleaner.saar.metrics.sequences import Similarity, ratio
from cleaner.saar.metrics.tree import tree_labels
from cleaner.saar.metrics.words import words_as_written, words_of_values

__all__ = ["MAX_CHARS", "METRICS", "Similarity", "code_of", "comparable_text", "similarity"]

METRICS: tuple[str, ...] = ("difflib", "token", "ast", "json", "text")
# Characters of all arguments together. Above, only difflib compares: the others need as long to take a text apart.
MAX_CHARS = 400_000


def similarity(
    failed: Sequence[str], accepted: Sequence[str], gamma: float, metric: str = "difflib"
) -> Similarity:
    """Similarity of the failing calls to those that replace them.

    Never raises for what the texts hold. The same in every run: nothing depends on the clock.

    Time: 1 s was the longest measured, up to a million characters, over repetitive, random and deeply nested texts.
    Code takes difflib 4 ms for 2,000 characters in each call, 50 ms for 10,000, 0.4 s for 40,000. Repetitive texts of
    1,000 characters may take as long as any, so run it off the event loop. No step holds the GIL for more than 0.1 s: a
    call of cydifflib 20 ms, counting a million characters 50 ms, Python's parser 0.1 s (20,000 characters of one-letter
    lines).

    Args:
        failed: argument strings of the failing calls: JSON, or the raw text of a call that did not parse.
        accepted: argument strings of the accepted calls.
        gamma: threshold of a shallow repair; a value that is not exact may be a bound (see `Similarity`).
        metric: one of `METRICS`.

    Raises:
        ValueError: an unknown metric.
        TypeError: a string in place of a sequence of strings.
    """
    if isinstance(failed, str) or isinstance(accepted, str):
        raise TypeError("similarity compares sequences of argument strings, one string for each call")
    if metric not in METRICS:
        raise ValueError(f"similarity={metric!r} must be one of {', '.join(METRICS)}")
    if list(failed) == list(accepted):
        return Similarity(1.0)
    if metric == "difflib":
        return ratio(_code(failed), _code(accepted), gamma)
    if sum(map(len, failed)) + sum(map(len, accepted)) > MAX_CHARS:
        return Similarity(0.0, exact=False)
    if metric == "json":
        values = parsed_arguments(failed), parsed_arguments(accepted)
        if values[0] is None or values[1] is None:
            return ratio(*_numbered(words_as_written(failed), words_as_written(accepted)), gamma)
        return field_similarity(values[0], values[1])
    if metric == "text":
        return ratio(*_numbered(*words_of_values(failed, accepted)), gamma)
    code = _code(failed), _code(accepted)
    if metric == "ast":
        trees = tree_labels(code[0]), tree_labels(code[1])
        if trees[0] is not None and trees[1] is not None:
            return ratio(*_numbered(trees[0], trees[1]), gamma)
    return ratio(*_numbered(lexemes(code[0]), lexemes(code[1])), gamma)


def _code(calls: Sequence[str]) -> str:
    return "\n".join(map(comparable_text, calls))


def _numbered(failed: list[str], accepted: list[str]) -> tuple[list[int], list[int]]:
    """Equal strings as equal numbers, which are compared faster."""
    numbers: dict[str, int] = {}
    first, second = ([numbers.setdefault(part, len(numbers)) for part in side] for side in (failed, accepted))
    return first, second
