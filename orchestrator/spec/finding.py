"""One thing that is wrong at one key of a job, before its place in the file is known.

Pure; the words for keys and values in messages live here, so that they read the same everywhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A key and what is wrong with it."""

    key: str
    """Dotted: `training.optimizer.lr`, `model.config.depths[1]`; empty for the whole file."""
    message: str


def join_key(parent: str, part: str | int) -> str:
    """Append a key, or an index from 0, to a dotted key."""
    if isinstance(part, int):
        return f"{parent}[{part}]"
    plain = part if part.isprintable() and part.strip() else repr(part)
    return f"{parent}.{_shorten(plain)}" if parent else _shorten(plain)


def dotted_key(path: Iterable[str | int]) -> str:
    """Write a path of keys and indexes as one dotted key."""
    key = ""
    for part in path:
        key = join_key(key, part)
    return key


def show_value(value: Any) -> str:
    """Name a value in a message, on one short line: `3`, `true`, `'abc' (text)`, `a list`."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"{show_text(value)} (text)"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return _shorten(repr(value))


def show_text(text: str) -> str:
    """Quote a text, on one short line."""
    return repr(text) if len(text) <= _LONGEST_SHOWN else repr(_shorten(text))


def closest(name: str, names: Sequence[str], *, cutoff: float = 0.6) -> str | None:
    """Find the name that was probably meant.

    Args:
        name: what was written.
        names: what could have been written.
        cutoff: how alike they must be, 0..1.
    """
    by_plain = {_plain(known): known for known in reversed(names)}
    found = get_close_matches(_plain(name[:_LONGEST_SHOWN]), list(by_plain), n=1, cutoff=cutoff)
    return by_plain[found[0]] if found else None


def did_you_mean(name: Any, names: Sequence[str]) -> str:
    """Say `did you mean 'x'? ` when something is close, else nothing."""
    found = closest(name, names) if isinstance(name, str) else None
    return f"did you mean {found!r}? " if found else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
