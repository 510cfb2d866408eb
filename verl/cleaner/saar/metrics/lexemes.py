"""The lexical tokens of code, for the metric `token`.

A tolerant reader instead of Python's `tokenize`, which stops at the first mistake: what is compared has failed.
"""

import re

# Every alternative takes its text in one pass. An unfinished string ends with its line; one in triple quotes, with the
# text.
_LEXEME = re.compile(
    r"""
      (?P<skipped> \s++ | \#[^\n]*+ | \\(?=\r?\n) )
    | [bBfFrRuU]{0,2}+ (?: \"{3} (?:[^"\\]++ | \\. | "(?!""))*+ (?:\"{3} | \\?\Z)
                       | '{3} (?:[^'\\]++ | \\. | '(?!''))*+ (?:'{3} | \\?\Z)
                       | " (?:[^"\\\n]++ | \\.)*+ "?
                       | ' (?:[^'\\\n]++ | \\.)*+ '? )
    | \.?\d (?:[eE][+-]\d | [\w.])*+
    | \w++
    | \*\*=? | //=? | >>=? | <<=? | -> | \.\.\. | [-+*/%@&|^=<>!:]= | .
    """,
    re.VERBOSE | re.DOTALL,
)


def lexemes(text: str) -> list[str]:
    """Names, numbers, strings and operators of `text` in order; white space and comments are left out.

    A string is one token, with its prefix and quotes. Text that is no Python is read by the same rules: every character
    outside of white space and of what looks like a comment is in one of the tokens.

    Time: 0.3 µs for each character at most.
    """
    return [match[0] for match in _LEXEME.finditer(text) if match.lastgroup is None]
