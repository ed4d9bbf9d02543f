"""What an unquoted YAML scalar means: text, number, true, false or null.

Pure. Follows the core schema of YAML 1.2, not the 1.1 of PyYAML: `on`, `no` and `1:30` are text,
`1e-3` is a number. What the two read differently (`010`), and numbers that do not fit, are refused.

Source: YAML 1.2.2, section 10.3.2, tag resolution of the core schema.
"""

import math
import re

LARGEST_INT = 2**53
"""Integers beyond it are not exact once they have been through JSON."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(
    ("false", "False", "FALSE"), False
)
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MOST_DIGITS = 17


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """Tell what an unquoted scalar means.

    Raises:
        ValueError: it is a number we refuse; the message says why and what to write.
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            "a number with a leading zero is octal to some readers of YAML and decimal to others; "
            "drop the zero, write 0o10 for octal, or quote it"
        )
    if _DECIMAL.fullmatch(text) or _BASED.fullmatch(text):
        return _whole_number(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("not a finite number; write a number, or null for none")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("the number is too large; write one below 1.8e308, or quote it")
        return number
    return text


def _whole_number(text: str) -> int:
    # Length first: Python refuses to read integers of more than 4,300 digits, and slowly.
    number = int(text, 0) if len(text) <= _MOST_DIGITS + 1 else None
    if number is None or abs(number) > LARGEST_INT:
        raise ValueError("the whole number is too large; write one up to 2**53, or quote it")
    return number
