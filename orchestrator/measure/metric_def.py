"""One row of the table of metrics: a name, its unit, what it means and how it is got.

Pure arithmetic; touches nothing outside. What is unknown is `None`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.measure.sample import RankSample
from orchestrator.units import MIB

Source = TypeVar("Source")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricDef(Generic[Source]):
    """One row of the table."""

    name: str
    """`{rank}` stands for `rank_00`, `rank_01`, ..."""
    unit: str
    meaning: str
    value: Callable[[Source], float | None]
    rarely_changes: bool = False
    """A running peak: sent when it changes, and else only now and then."""


def in_mib(n_bytes: int | None) -> float | None:
    """Bytes in MiB."""
    return None if n_bytes is None else n_bytes / MIB


def in_tera(per_s: float | None) -> float | None:
    """Operations a second in TFLOP/s."""
    return None if per_s is None else per_s / 1e12


def part_ms(sample: RankSample, part: str) -> float | None:
    """One part of a step in ms; `None` where tracing has stretched it."""
    # Tracing allocations stretches a probe step, so of such a step only the part that is
    # measured in no other is kept.
    seconds: float | None = getattr(sample, f"{part}_s")
    hidden = seconds is None or (sample.probe and part != "communication")
    return None if hidden or seconds is None else seconds * 1e3


STEP_PARTS = {
    "step": "from the end of the step before to the end of this one",
    "data": "waiting for batches and moving them",
    "forward": "forward passes",
    "backward": "backward passes",
    "optimizer": "the update",
    "communication": "inside collectives, waiting included; overlaps the others; probe steps only",
    "checkpoint": "saving training state after the step before",
    "logging": "between the step before and this one: handing on what was measured",
}
"""Part of a step -> what it is."""
