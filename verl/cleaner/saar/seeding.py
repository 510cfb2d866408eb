"""Seeds and random draws that depend only on which trajectory, and what in it, they are for."""

import hashlib

_SEED_BITS = 63


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from the text of `parts`: equal in every process, independent between different parts."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _SEED_BITS)


def draw(*parts: object) -> float:
    """A number in [0, 1) from `parts`, by the same rule."""
    return derive_seed("draw", *parts) / 2.0**_SEED_BITS
