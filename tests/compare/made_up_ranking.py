"""Rankings written by hand, of made-up entries. What is not told is unknown."""

from typing import Any

from orchestrator.compare.entry import Entry
from orchestrator.compare.ranking import (
    OBJECTIVES,
    LossVerdict,
    Ranking,
    Ratio,
    Row,
    Sameness,
    Throughput,
)
from tests.compare.made_up import entry

SAME = LossVerdict(sameness=Sameness.BITWISE, max_difference=0.0, at_step=1, reason="")
NO_LOSSES = LossVerdict(sameness=Sameness.UNKNOWN, max_difference=None, at_step=None, reason="")


def loss(
    sameness: str,
    *,
    difference: float | None = None,
    step: int | None = None,
    reason: str = "",
) -> LossVerdict:
    """How the losses of a strategy are to the baseline's."""
    return LossVerdict(
        sameness=Sameness(sameness), max_difference=difference, at_step=step, reason=reason
    )


def speed(samples_per_s: float, low: float, high: float) -> Throughput:
    """A throughput, whose quartiles are the bounds of its interval."""
    return Throughput(samples_per_s=samples_per_s, quartiles=(low, high), interval=(low, high))


def ratio(value: float, low: float, high: float) -> Ratio:
    """A speed beside the baseline's."""
    return Ratio(ratio=value, interval=(low, high), difference_shown=not low <= 1 <= high)


def row(made: Entry | None = None, **changes: Any) -> Row:
    """A strategy that is as the baseline is."""
    told: dict[str, Any] = {
        "entry": made or entry(),
        "throughput": None,
        "speed_ratio": None,
        "peak_ratio": None,
        "loss": SAME,
        "pareto": False,
    }
    return Row(**{**told, **changes})


def stopped(
    name: str,
    *,
    outcome: str = "oom",
    message: str | None = "rank 1 ran out of memory; raise zero.stage",
) -> Row:
    """A strategy that ended before its first step."""
    made = entry(name, outcome=outcome, message=message, losses=(), rounds=())
    return row(made, loss=NO_LOSSES)


def ranking(*rows: Row, baseline: str | None = "zero0", **changes: Any) -> Ranking:
    """Strategies without winners."""
    told: dict[str, Any] = {
        "winners": dict.fromkeys(OBJECTIVES),
        "budget_bytes": None,
        "differences": (),
        "not_ranked": (),
    }
    return Ranking(rows=rows, baseline=baseline, **{**told, **changes})
