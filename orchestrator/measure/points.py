"""Points of metrics: what a step of the ranks, an evaluation or a finished run puts on the charts.

Reads the table in `metrics`. Pure arithmetic; touches nothing outside. What is unknown is absent.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.measure.metrics import (
    EVAL_METRICS,
    JOB_METRICS,
    RANK_METRICS,
    SUMMARY_METRICS,
    MetricDef,
    Source,
)
from orchestrator.measure.peaks import RankStep
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import EvalResult


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """One value of one metric, as a tracking store keeps it."""

    key: str
    value: float
    step: int
    """Optimizer step; 0 for what holds for the whole run."""
    time_ms: int
    """Milliseconds since 1970, from the record, so that sending a point twice changes nothing."""


def rank_label(rank: int, *, world_size: int) -> str:
    """Name a rank so that names sort as numbers do: `rank_00`, or `rank_000` from 101 ranks on."""
    return f"rank_{rank:0{max(2, len(str(world_size - 1)))}d}"


def points_of(ranks: Mapping[int, RankStep], *, world_size: int) -> list[MetricPoint]:
    """Turn one optimizer step into points.

    Args:
        ranks: rank -> what it reported of this step. With a rank missing only the values of single
            ranks are made, since the job's would be wrong.
        world_size: ranks of the job.

    Returns:
        Points in the table's order; values may be infinite or NaN.
    """
    points: list[MetricPoint] = []
    if not ranks:
        return points
    samples = tuple(ranks[rank].sample for rank in sorted(ranks))
    step = samples[0].step
    if len(samples) == world_size:
        time_ms = max(_time_ms(sample.time_unix_s) for sample in samples)
        points += _points(JOB_METRICS, samples, step=step, time_ms=time_ms)
    for rank in sorted(ranks):
        label = rank_label(rank, world_size=world_size)
        time_ms = _time_ms(ranks[rank].sample.time_unix_s)
        points += _points(RANK_METRICS, ranks[rank], step=step, time_ms=time_ms, label=label)
    return points


def eval_points(result: EvalResult) -> list[MetricPoint]:
    """Turn an evaluation into points."""
    time_ms = _time_ms(result.time_unix_s)
    return _points(EVAL_METRICS, result, step=result.step, time_ms=time_ms)


def summary_points(run: RunRecord, *, time_ms: int) -> list[MetricPoint]:
    """Turn a finished run into its bars: finite points at step 0.

    Args:
        run: the run.
        time_ms: when it ended, milliseconds since 1970.
    """
    return finite(_points(SUMMARY_METRICS, run, step=0, time_ms=time_ms))


def finite(points: Iterable[MetricPoint]) -> list[MetricPoint]:
    """Leave out what is infinite or not a number: stores keep such values as something else."""
    return [point for point in points if math.isfinite(point.value)]


def _time_ms(time_unix_s: float) -> int:
    return round(time_unix_s * 1e3)


def _points(
    table: tuple[MetricDef[Source], ...],
    source: Source,
    *,
    step: int,
    time_ms: int,
    label: str = "",
) -> list[MetricPoint]:
    return [
        MetricPoint(
            key=metric.name.format(rank=label), value=float(value), step=step, time_ms=time_ms
        )
        for metric in table
        if (value := metric.value(source)) is not None
    ]
