"""Units at the end of an answer: `5\\text{ cm}` is 5, but it is not `5\\text{ m}`."""

from __future__ import annotations

import re

_WRAPPED = re.compile(
    r"\\(?:text|mathrm|mbox|textrm|operatorname)\s*\{\s*([^{}]*?)\s*\}\s*(?:\^\s*\{?(\d)\}?)?\s*$"
)
_PLAIN = re.compile(r"[\d)}]\s*([A-Za-z][A-Za-z/ ]*?)\s*(?:\^\s*\{?(\d)\}?)?\s*$")
_NAMES = {
    "millimeter": "mm millimeters millimetre millimetres", "centimeter": "cm centimeters centimetre centimetres",
    "meter": "m meters metre metres", "kilometer": "km kilometers kilometre kilometres",
    "inch": "in inches", "foot": "ft feet", "yard": "yd yards", "mile": "mi miles",
    "second": "s sec secs seconds", "minute": "min mins minutes", "hour": "h hr hrs hours", "day": "days",
    "week": "weeks", "month": "months", "year": "yr yrs years",
    "milligram": "mg milligrams", "gram": "g grams", "kilogram": "kg kilograms", "ton": "tons tonne tonnes",
    "pound": "lb lbs pounds", "ounce": "oz ounces",
    "milliliter": "ml milliliters millilitre millilitres", "liter": "l liters litre litres",
    "dollar": "dollars", "cent": "cents", "degree": "degrees deg", "radian": "radians rad",
    "joule": "j joules", "kilojoule": "kj kilojoules", "watt": "w watts", "newton": "n newtons", "volt": "v volts",
    "mole": "mol moles", "kelvin": "k kelvins", "pascal": "pa pascals", "hertz": "hz",
}  # fmt: skip
_CANONICAL = {word: name for name, words in _NAMES.items() for word in (name, *words.split())}
# Plain single letters after a number are variables more often than units.
_SHORTEST_PLAIN = 2


def units_differ(one: str, other: str) -> bool:
    """Whether both texts end with a known unit, and not with the same one. Nothing is converted."""
    first, second = _unit(one), _unit(other)
    return first is not None and second is not None and first != second


def _unit(text: str) -> tuple[str, str] | None:
    """The known unit that a text ends with, and its exponent."""
    found = _WRAPPED.search(text)
    if found is None:
        found = _PLAIN.search(text)
        if found is None or len(found[1]) < _SHORTEST_PLAIN:
            return None
    name = _CANONICAL.get(found[1].strip().rstrip(".").lower())
    return None if name is None else (name, found[2] or "1")
