"""What a forecast adds up: pieces of memory, each with its formula in words and where it is from.

Pure arithmetic.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from orchestrator.measure.ledger import Ledger, ledger_of

Place = Literal["device", "host", "nvme"]


class Part(NamedTuple):
    """A piece of memory at one moment."""

    category: str
    n_bytes: int
    what: str
    """Its formula in words, such as `fp32 master weights 4P/N`."""
    source: str
    place: Place = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A piece of memory of a forecast."""

    phase: str
    """`resting`, or the phase at whose peak it is there."""
    category: str
    """One of the ledger's."""
    place: Place
    n_bytes: int
    what: str
    """Its formula in words, such as `fp32 master weights 4P/N`."""
    source: str


def terms_of(phase: str, parts: Iterable[Part]) -> tuple[Term, ...]:
    """The pieces of a phase that are not empty."""
    return tuple(
        Term(
            phase=phase,
            category=part.category,
            place=part.place,
            n_bytes=part.n_bytes,
            what=part.what,
            source=part.source,
        )
        for part in parts
        if part.n_bytes
    )


def n_bytes_of(parts: Iterable[Part]) -> int:
    """The sum of pieces."""
    return sum(part.n_bytes for part in parts)


def fullest(moments: Iterable[Sequence[Part]]) -> Sequence[Part]:
    """The moment at which most is held; nothing, if there are no moments."""
    return max(moments, key=n_bytes_of, default=())


def ledger_at(parts: Iterable[Part], *, place: Place) -> Ledger:
    """Pieces at one place, by category."""
    return ledger_of((part.category, part.n_bytes) for part in parts if part.place == place)
