"""The spread of a value over many ranks, where a line for each would be too many to read.

Pure arithmetic.
"""

from collections.abc import Iterable
from statistics import median

SPREAD_BEYOND = 16
"""Ranks from which on a section also shows the spread; the table of ranks turns there too."""


def spread(values: Iterable[float | None]) -> dict[str, float]:
    """Largest, median and smallest of what is known.

    Args:
        values: one of each rank; `None` where a rank does not know it.

    Returns:
        `max`, `median` and `min`: names that sort before every rank's. Empty when nothing is known.
    """
    known = sorted(value for value in values if value is not None)
    return {"max": known[-1], "median": median(known), "min": known[0]} if known else {}
