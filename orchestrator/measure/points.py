"""Points of metrics: what a step, an evaluation, a machine or a finished run puts on the charts.

Reads the table in `metrics`. Pure arithmetic; touches nothing outside. What is unknown is absent.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.measure.metric_def import MetricDef, Source
from orchestrator.measure.metrics import (
    EVAL_METRICS,
    FORECAST_METRICS,
    JOB_METRICS,
    SUMMARY_METRICS,
)
from orchestrator.measure.peaks import RankStep
from orchestrator.measure.rank_metrics import RANK_METRICS
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import EvalResult, NodeSample
from orchestrator.measure.spread import SPREAD_BEYOND, spread

_RARELY_CHANGING = frozenset(
    metric.name.rpartition("/")[0] for metric in RANK_METRICS if metric.rarely_changes
)
"""Sections whose lines are flat most of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """One value of one metric, as a tracking store keeps it."""

    key: str
    value: float
    step: int
    """Optimizer step, or the number of a machine's sample; 0 for what holds for the whole run."""
    time_ms: int
    """Milliseconds since 1970, from the record, so that sending a point twice changes nothing."""


def rank_label(rank: int, *, world_size: int) -> str:
    """Name a rank so that names sort as numbers do: `rank_00`, or `rank_000` from 101 ranks on."""
    return f"rank_{rank:0{max(2, len(str(world_size - 1)))}d}"


def job_points(ranks: Sequence[RankStep]) -> list[MetricPoint]:
    """What one optimizer step was for the whole job.

    Args:
        ranks: the step of every rank; with one missing the values would be wrong.

    Returns:
        Points in the table's order; values may be infinite or NaN.
    """
    samples = tuple(rank.sample for rank in ranks)
    return _points(JOB_METRICS, samples, step=samples[0].step, time_ms=_latest_ms(ranks))


def spread_points(ranks: Sequence[RankStep]) -> list[MetricPoint]:
    """How a step's values lie over the ranks: `max`, `median` and `min` in every rank's section.

    Args:
        ranks: the step of every rank.

    Returns:
        Nothing up to `SPREAD_BEYOND` ranks, where every rank's own line can be read.
    """
    if len(ranks) <= SPREAD_BEYOND:
        return []
    step, time_ms = ranks[0].sample.step, _latest_ms(ranks)
    return [
        MetricPoint(key=metric.name.format(rank=name), value=value, step=step, time_ms=time_ms)
        for metric in RANK_METRICS
        for name, value in spread(metric.value(rank) for rank in ranks).items()
    ]


def rank_points(rank: RankStep, *, world_size: int) -> list[MetricPoint]:
    """What one optimizer step was for one rank."""
    sample = rank.sample
    label = rank_label(sample.rank, world_size=world_size)
    time_ms = _time_ms(sample.time_unix_s)
    return _points(RANK_METRICS, rank, step=sample.step, time_ms=time_ms, label=label)


def changes_rarely(point: MetricPoint) -> bool:
    """Whether a point is of a line that is flat most of the time, such as a running peak."""
    return point.key.rpartition("/")[0] in _RARELY_CHANGING


def node_points(sample: NodeSample, *, label: str, step: int) -> list[MetricPoint]:
    """Turn what a machine was doing into points, named as MLflow's own monitor does.

    Args:
        sample: the machine.
        label: what the machine is called: `node_0`.
        step: number of the sample.

    Source:
        mlflow 3.17.2, system_metrics/system_metrics_monitor.py, `publish_metrics`.
    """
    time_ms = _time_ms(sample.time_unix_s)
    return [
        MetricPoint(key=f"system/{label}/{name}", value=value, step=step, time_ms=time_ms)
        for name, value in sample.values.items()
    ]


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
    return finite(_points((*SUMMARY_METRICS, *FORECAST_METRICS), run, step=0, time_ms=time_ms))


def finite(points: Iterable[MetricPoint]) -> list[MetricPoint]:
    """Leave out what is infinite or not a number: stores keep such values as something else."""
    return [point for point in points if math.isfinite(point.value)]


def _latest_ms(ranks: Iterable[RankStep]) -> int:
    return max(_time_ms(rank.sample.time_unix_s) for rank in ranks)


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
