"""Whether it fits: an interval of bytes against a budget. Pure arithmetic."""

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.units import as_bytes


class Verdict(StrEnum):
    """What to expect of a run."""

    FITS = "FITS"
    """Even the upper end of the interval is within the budget."""
    TIGHT = "TIGHT"
    """What is expected is within the budget, the upper end is not."""
    TOO_BIG = "TOO_BIG"
    """What is expected is over the budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Bytes that are expected, and between which ends they will lie."""

    low: int
    expected: int
    high: int

    def plus(self, low: int, high: int) -> "Interval":
        """Add something that lies between two ends, expected in their middle."""
        return Interval(
            low=self.low + low,
            expected=self.expected + (low + high) // 2,
            high=self.high + high,
        )


def around(n_bytes: int, *, below_ratio: float, above_ratio: float) -> Interval:
    """An interval around what is expected."""
    return Interval(
        low=math.floor(n_bytes * (1 - below_ratio)),
        expected=n_bytes,
        high=math.ceil(n_bytes * (1 + above_ratio)),
    )


def judge(needed: Interval, *, budget_bytes: int) -> Verdict:
    """Hold what is needed against what there is."""
    if needed.expected > budget_bytes:
        return Verdict.TOO_BIG
    return Verdict.TIGHT if needed.high > budget_bytes else Verdict.FITS


def in_words(needed: Interval, *, budget_bytes: int, of: str) -> str:
    """Say how what is needed stands to what there is.

    Args:
        needed: bytes.
        budget_bytes: what there is.
        of: whose memory it is, such as `an H200's memory`.
    """
    share = needed.expected / budget_bytes if budget_bytes else math.inf
    up_to = f", up to {as_bytes(needed.high)}" if needed.high > needed.expected * 1.005 else ""
    return f"{as_bytes(needed.expected)}{up_to} of {as_bytes(budget_bytes)} {of} ({share:.1%})"


def worse(one: Verdict, other: Verdict) -> Verdict:
    """The less hopeful of two."""
    order = list(Verdict)
    return max(one, other, key=order.index)
