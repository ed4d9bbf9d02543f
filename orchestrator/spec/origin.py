"""Where each key of a job was written: a line of the file, or a `--set` of the command line.

Pure; touches nothing outside.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAST_PART = re.compile(r"(?:\.[^.\[]*|\[[^\]]*\])$")
_USER_INFO = re.compile(r"//[^/@\s]*@")
_LONGEST_SHOWN = 80


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A spot in the file or on the command line; places sort as a reader meets them."""

    override: int
    """0: in the file; n: in the n-th `--set`."""
    line: int
    """From 1."""
    column: int
    """In characters, from 1."""


START = Place(0, 1, 1)


def place_of(key: str, places: Mapping[str, Place]) -> Place:
    """Find where a dotted key was written, or its nearest parent, or else the file's first line."""
    while key and key not in places:
        shorter = _LAST_PART.sub("", key)
        key = shorter if shorter != key else ""
    return places.get(key, START)


def where(place: Place, *, path: Path, overrides: Sequence[str]) -> str:
    """Write a place as `file:line:col`, or as the `--set` it stands in."""
    if place.override:
        return show_override(overrides[place.override - 1])
    return f"{path}:{place.line}:{place.column}"


def show_override(override: str) -> str:
    """Write an override as the user did, on one short line, without passwords."""
    plain = _USER_INFO.sub("//***@", override)
    plain = plain if plain.isprintable() else repr(plain)
    return "--set " + (
        plain if len(plain) <= _LONGEST_SHOWN else plain[: _LONGEST_SHOWN - 3] + "..."
    )
