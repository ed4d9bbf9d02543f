"""The table of metrics: every name, its unit, what it means and how it is got from records.

Pure arithmetic; touches nothing outside. What is unknown is `None`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Generic, TypeVar

from orchestrator.measure.peaks import RankStep, known_max
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import EvalResult, RankSample
from orchestrator.measure.throughput import (
    JobStep,
    job_samples_per_s,
    job_tokens_per_s,
    rank_samples_per_s,
)
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


def _mib(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / MIB


def _rank_ms(sample: RankSample, part: str) -> float | None:
    # Tracing allocations stretches a probe step, so of such a step only the part that is
    # measured in no other is kept.
    seconds: float | None = getattr(sample, f"{part}_s")
    hidden = seconds is None or (sample.probe and part != "communication")
    return None if hidden or seconds is None else seconds * 1e3


def _job_ms(step: JobStep, part: str) -> float | None:
    known = [ms for sample in step if (ms := _rank_ms(sample, part)) is not None]
    return fmean(known) if len(known) == len(step) else None


_PARTS = {
    "step": "from the end of the step before to the end of this one",
    "data": "waiting for batches and moving them",
    "forward": "forward passes",
    "backward": "backward passes",
    "optimizer": "the update",
    "communication": "inside collectives, waiting included; overlaps the others; probe steps only",
}


def _job_time(part: str, meaning: str) -> MetricDef[JobStep]:
    return MetricDef(
        name=f"time_ms/{part}",
        unit="ms",
        # The mean, so that the parts of a step add up to no more than the step.
        meaning=f"{meaning}; mean over ranks",
        value=lambda step: _job_ms(step, part),
    )


def _rank_time(part: str, meaning: str) -> MetricDef[RankStep]:
    return MetricDef(
        name=f"time_ms_{part}/{{rank}}",
        unit="ms",
        meaning=meaning,
        value=lambda rank: _rank_ms(rank.sample, part),
    )


JOB_METRICS: tuple[MetricDef[JobStep], ...] = (
    MetricDef(
        name="train/loss",
        unit="1",
        meaning="mean loss of the global batch",
        value=lambda step: fmean(sample.loss for sample in step),
    ),
    MetricDef(name="train/lr", unit="1", meaning="learning rate", value=lambda step: step[0].lr),
    MetricDef(
        name="train/grad_norm",
        unit="1",
        meaning="norm of the global gradient before clipping",
        value=lambda step: step[0].grad_norm,
    ),
    MetricDef(
        name="train/skipped_steps",
        unit="steps",
        meaning="updates left out so far because a gradient was not finite",
        value=lambda step: max(sample.skipped_steps for sample in step),
    ),
    MetricDef(
        name="throughput/samples_per_s",
        unit="samples/s",
        meaning="the whole job: samples of all ranks over the time of the slowest; no probe steps",
        value=job_samples_per_s,
    ),
    MetricDef(
        name="throughput/tokens_per_s",
        unit="tokens/s",
        meaning="the whole job: tokens of all ranks over the time of the slowest; no probe steps",
        value=job_tokens_per_s,
    ),
    *(_job_time(part, meaning) for part, meaning in _PARTS.items()),
)

RANK_METRICS: tuple[MetricDef[RankStep], ...] = (
    MetricDef(
        name="throughput_per_rank/{rank}",
        unit="samples/s",
        meaning="samples of one rank over its own time; no probe steps",
        value=lambda rank: rank_samples_per_s(rank.sample),
    ),
    MetricDef(
        name="memory_peak_mib/{rank}",
        unit="MiB",
        meaning="running peak of tensor bytes on the device: construction, forward, backward, step",
        value=lambda rank: _mib(rank.peaks.device_bytes),
    ),
    MetricDef(
        name="memory_reserved_mib/{rank}",
        unit="MiB",
        meaning="running peak of what CUDA's caching allocator holds",
        value=lambda rank: _mib(rank.peaks.reserved_bytes),
    ),
    MetricDef(
        name="memory_rss_mib/{rank}",
        unit="MiB",
        meaning="running peak of the process's resident memory",
        value=lambda rank: _mib(rank.peaks.rss_bytes),
    ),
    MetricDef(
        name="memory_host_mib/{rank}",
        unit="MiB",
        meaning="running peak of offloaded tensors in host memory",
        value=lambda rank: _mib(rank.peaks.host_bytes),
    ),
    MetricDef(
        name="memory_nvme_mib/{rank}",
        unit="MiB",
        meaning="running peak of bytes swapped out to NVMe",
        value=lambda rank: _mib(rank.peaks.nvme_bytes),
    ),
    *(_rank_time(part, meaning) for part, meaning in _PARTS.items()),
)

EVAL_METRICS: tuple[MetricDef[EvalResult], ...] = (
    MetricDef(
        name="eval/loss",
        unit="1",
        meaning="mean loss over the evaluation set",
        value=lambda result: result.loss,
    ),
    MetricDef(
        name="eval/accuracy",
        unit="ratio",
        meaning="share of right labels",
        value=lambda result: result.accuracy,
    ),
)

SUMMARY_METRICS: tuple[MetricDef[RunRecord], ...] = (
    MetricDef(
        name="summary/peak_mib",
        unit="MiB",
        meaning="peak of tensor bytes on the device of the fullest rank",
        value=lambda run: _mib(known_max(*(row.peak_bytes for row in run.ranks))),
    ),
    MetricDef(
        name="summary/samples_per_s",
        unit="samples/s",
        meaning="the whole job, median after warm-up",
        value=lambda run: run.samples_per_s,
    ),
    MetricDef(
        name="summary/tokens_per_s",
        unit="tokens/s",
        meaning="the whole job, median after warm-up",
        value=lambda run: run.tokens_per_s,
    ),
    MetricDef(
        name="summary/final_loss",
        unit="1",
        meaning="training loss of the last step",
        value=lambda run: run.losses[-1] if run.losses else None,
    ),
    MetricDef(
        name="summary/accuracy",
        unit="ratio",
        meaning="accuracy of the last evaluation",
        value=lambda run: run.evals[-1].accuracy if run.evals else None,
    ),
    MetricDef(
        name="summary/startup_s",
        unit="s",
        meaning="from the command to the end of the first optimizer step",
        value=lambda run: run.first_step_s,
    ),
)

METRICS: tuple[MetricDef[Any], ...] = (
    *JOB_METRICS,
    *RANK_METRICS,
    *EVAL_METRICS,
    *SUMMARY_METRICS,
)
