"""The one unit that a plot's sizes are written in. Pure arithmetic."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.units import GIB, MIB

LARGE_BYTES = 10 * GIB
"""From here on sizes are read in GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeUnit:
    """MiB or GiB."""

    name: str
    size_bytes: int

    def of(self, n_bytes: float) -> float:
        """So many bytes in this unit."""
        return n_bytes / self.size_bytes

    def number(self, n_bytes: float) -> str:
        """The amount without the unit: with more decimals the smaller it is."""
        amount = self.of(n_bytes)
        n_decimals = 1 if amount >= 10 or not amount else 2 if amount >= 0.1 else 4
        return f"{amount:,.{n_decimals}f}"

    def words(self, n_bytes: float) -> str:
        """The amount as `12.3 GiB`."""
        return f"{self.number(n_bytes)} {self.name}"


def size_unit(sizes_bytes: Iterable[float]) -> SizeUnit:
    """Choose a unit: GiB where the largest is 10 GiB or more, else MiB."""
    if max(sizes_bytes, default=0) >= LARGE_BYTES:
        return SizeUnit(name="GiB", size_bytes=GIB)
    return SizeUnit(name="MiB", size_bytes=MIB)
