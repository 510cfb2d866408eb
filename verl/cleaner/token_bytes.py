"""The bytes that a token stands for: what lets a marker be found although tokens split or straddle it."""

from collections.abc import Callable
from typing import Any

# One memo per tokenizer; the tokenizer is kept beside it so that its id cannot be given to another one.
_TABLES: dict[int, tuple[Any, Callable[[int], bytes]]] = {}


def token_bytes_of(tokenizer: Any) -> Callable[[int], bytes]:
    """A function from token id to bytes, memoised per tokenizer and process.

    Exact for byte-level BPE (GPT-2, Qwen, Llama 3, SmolLM). For other tokenizers a token is decoded by itself, which
    is exact for ASCII text, and markers are ASCII or tokens of their own.
    """
    known = _TABLES.get(id(tokenizer))
    if known is None:
        known = _TABLES[id(tokenizer)] = (tokenizer, _Table(_reader(tokenizer)).__getitem__)
    return known[1]


class _Table(dict[int, bytes]):
    """Bytes by token, filled as tokens are asked for. Looking up a known token runs no Python code."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, token: int) -> bytes:
        piece = self[token] = self._read(token)
        return piece


def _reader(tokenizer: Any) -> Callable[[int], bytes]:
    def by_decoding(token: int) -> bytes:
        return str(tokenizer.decode([token])).encode("utf-8", "surrogatepass")

    if not _is_byte_level(tokenizer):
        return by_decoding
    alphabet = _byte_level_alphabet()
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))

    def by_alphabet(token: int) -> bytes:
        text = tokenizer.convert_ids_to_tokens(token)
        if text is None:
            return b""
        if token in added or any(character not in alphabet for character in text):
            return str(text).encode()
        return bytes(alphabet[character] for character in text)

    return by_alphabet


def _is_byte_level(tokenizer: Any) -> bool:
    decoder: Any = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    try:
        return b'"ByteLevel"' in decoder.__getstate__()
    except (AttributeError, TypeError):
        return False


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: visible Latin-1 characters for themselves, the rest from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in visible}
    hidden = (byte for byte in range(256) if byte not in set(visible))
    alphabet.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return alphabet
