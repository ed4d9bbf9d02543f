"""The ranking: strategies beside a baseline, and which of them wins under which objective. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.compare.entry import Entry


class Sameness(StrEnum):
    """How the losses of a strategy are to those of the baseline."""

    BITWISE = "bitwise"
    """Equal to the last bit in every step."""
    ROUNDING = "rounding"
    """As far apart as rounding takes this training."""
    DIFFERENT = "different"
    """Further apart than rounding explains: the strategy changed the training."""
    NOT_COMPARABLE = "not_comparable"
    """They need not be equal, for a reason that is told."""
    UNKNOWN = "unknown"
    """There are no losses to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossVerdict:
    """The losses of a strategy beside those of the baseline."""

    sameness: Sameness
    max_difference: float | None
    """Largest absolute difference of two losses of the same step; `None` without common steps."""
    at_step: int | None
    """Where that is, from 1."""
    reason: str
    """Why, in words that stand after the verdict; empty where the verdict says all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Samples a second of a whole job, over the measured steps of all rounds."""

    samples_per_s: float
    """Median."""
    quartiles: tuple[float, float]
    """First and third: half of all steps lie between."""
    interval: tuple[float, float]
    """Where the median lies with 95 % confidence (bootstrap)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How much faster than the baseline."""

    ratio: float
    """Samples/s over the baseline's; above 1 is faster."""
    interval: tuple[float, float]
    """Where it lies with 95 % confidence."""
    difference_shown: bool
    """Whether the interval leaves out 1; else no difference is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One strategy, ranked."""

    entry: Entry
    throughput: Throughput | None
    """`None` where no step was measured."""
    speed_ratio: Ratio | None
    """Beside the baseline; `None` for the baseline itself, and without throughput."""
    peak_ratio: float | None
    """Peak memory over the baseline's; `None` where one of the two is unknown."""
    loss: LossVerdict
    """Of the baseline beside itself: bitwise, 0."""
    pareto: bool
    """No other strategy that is ok has both less peak memory and more throughput."""

    @property
    def name(self) -> str:
        """The strategy's."""
        return self.entry.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """The best strategy under one objective."""

    name: str
    reason: str
    """Why it, in a sentence with its numbers."""


OBJECTIVES = ("fastest", "smallest", "balanced")
"""Fastest that fits the budget; least peak memory; most throughput for each byte of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Strategies side by side."""

    rows: tuple[Row, ...]
    """In the order in which they were asked for."""
    baseline: str | None
    """What the others are held against; `None` where none ran to its end."""
    winners: dict[str, Winner | None]
    """Objective -> its winner; `None` where no strategy can be one."""
    budget_bytes: int | None
    """What a device may hold; `None` where no budget was given."""
    differences: tuple[str, ...]
    """What differs between the runs besides what was varied on purpose: versions, commits, people.
    """
    not_ranked: tuple[str, ...]
    """Why they cannot be ranked; empty where they can. Without winners and front then."""

    def row(self, name: str) -> Row:
        """The row of a strategy.

        Raises:
            KeyError: there is none of that name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """The rows, the baseline and the winners as `compare --json` prints them."""
        return {
            "rows": [_row_json(row) for row in self.rows],
            "baseline": self.baseline,
            "winners": {
                objective: None if winner is None else winner.name
                for objective, winner in self.winners.items()
            },
            "reasons": {
                objective: None if winner is None else winner.reason
                for objective, winner in self.winners.items()
            },
            "budget_bytes": self.budget_bytes,
            "differences": list(self.differences),
            "not_ranked": list(self.not_ranked),
        }


def _row_json(row: Row) -> dict[str, Any]:
    entry, record, throughput = row.entry, row.entry.record, row.throughput
    fullest, speed = record.fullest, row.speed_ratio
    unknown = row.loss.sameness is Sameness.UNKNOWN
    return {
        "strategy": entry.name,
        "outcome": record.outcome,
        "message": record.message,
        "run_id": record.run_id,
        "workers": entry.workers,
        "micro_batch_size": entry.micro_batch_size,
        "peak_bytes": entry.peak_bytes,
        "peak_ratio": row.peak_ratio,
        "ledger": None if fullest is None else fullest.ledger,
        "host_bytes": None if fullest is None else fullest.host_bytes,
        "nvme_bytes": None if fullest is None else fullest.nvme_bytes,
        "forecast_peak_bytes": record.forecast_peak_bytes,
        "forecast_error_ratio": record.forecast_error_ratio,
        "samples_per_s": None if throughput is None else throughput.samples_per_s,
        "samples_per_s_quartiles": None if throughput is None else list(throughput.quartiles),
        "samples_per_s_interval": None if throughput is None else list(throughput.interval),
        "speed_ratio": None if speed is None else speed.ratio,
        "speed_ratio_interval": None if speed is None else list(speed.interval),
        "difference_shown": None if speed is None else speed.difference_shown,
        "n_rounds": len(entry.rounds),
        "mfu_ratio": record.mfu_ratio,
        "final_loss": record.losses[-1] if record.losses else None,
        "same_loss": None if unknown else row.loss.sameness.value,
        "same_loss_reason": row.loss.reason or None,
        "max_loss_difference": row.loss.max_difference,
        "pareto": row.pareto,
    }
