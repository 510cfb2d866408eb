"""Bounded memory for unbounded output: head and tail of a stream, and a comparison with an expected text."""

from __future__ import annotations

import codecs


class Match:
    """Compares a stream, piece by piece, with an expected text; both as if stripped. Holds no output."""

    def __init__(self, expected: str) -> None:
        self._expected = expected.strip()
        self._position = 0
        self._failed = False

    def feed(self, text: str) -> None:
        """Take the next piece of the stream."""
        if self._failed:
            return
        if self._position == 0:
            text = text.lstrip()
        expected = self._expected[self._position : self._position + len(text)]
        if text[: len(expected)] != expected or text[len(expected) :].strip():
            self._failed = True
        self._position += len(expected)

    @property
    def matched(self) -> bool:
        """Whether the whole stream, stripped, equals the expected text, stripped."""
        return not self._failed and self._position == len(self._expected)


class Capture:
    """Keeps the first and the last characters of a byte stream, decoded as UTF-8 with replacement
    characters.
    """

    def __init__(self, limit: int, match: Match | None = None) -> None:
        """limit: characters of `text()`, the marker included (but never less than the marker needs)."""
        self.limit = limit
        self.match = match
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = ""
        self._tail: list[str] = []  # at least the last `limit` characters, at most a few times as many
        self._tail_length = 0
        self._length = 0

    def feed(self, data: bytes, final: bool = False) -> None:
        """Take the next bytes; `final` ends the stream (half a character becomes a replacement character)."""
        text = self._decoder.decode(data, final)
        if not text:
            return
        if self.match is not None:
            self.match.feed(text)
        self._length += len(text)
        if len(self._head) <= self.limit:
            self._head = (self._head + text)[: self.limit + 1]
        self._keep_tail(text)

    def _keep_tail(self, text: str) -> None:
        """Cut only now and then: a cut copies `limit` characters, however short the text is."""
        self._tail.append(text if len(text) <= self.limit else text[len(text) - self.limit :])
        self._tail_length += len(self._tail[-1])
        if self._tail_length > 4 * self.limit + 4096:
            kept = "".join(self._tail)
            self._tail = [kept[len(kept) - self.limit :]]
            self._tail_length = self.limit

    def text(self) -> str:
        """The stream if it is short enough, else its head, a marker that counts what is left out, and its
        tail.
        """
        if self._length <= self.limit:
            return self._head
        marker = f"\n... [{self._length - self.limit} or more characters left out] ...\n"
        room = self.limit - len(marker)
        if room < 2:
            return self._head[: self.limit]
        head = (room + 1) // 2
        left_out = self._length - room
        marker = f"\n... [{left_out} characters left out] ...\n"
        return self._head[:head] + marker + "".join(self._tail)[-(room - head) :]
