"""The table of metrics: every name, its unit, what it means and how it is got from records.

Pure arithmetic; touches nothing outside. What is unknown is `None`.
"""

from statistics import fmean
from typing import Any

from orchestrator.measure.ledger import CATEGORY_MEANINGS, unattributed_ratio
from orchestrator.measure.metric_def import STEP_PARTS, MetricDef, in_mib, in_tera, part_ms
from orchestrator.measure.peaks import known_max
from orchestrator.measure.rank_metrics import RANK_METRICS
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import EvalResult
from orchestrator.measure.throughput import (
    JobStep,
    job_flops_per_s,
    job_mfu_ratio,
    job_samples_per_s,
    job_tokens_per_s,
)


def _job_ms(step: JobStep, part: str) -> float | None:
    known = [ms for sample in step if (ms := part_ms(sample, part)) is not None]
    return fmean(known) if len(known) == len(step) else None


def _job_time(part: str, meaning: str) -> MetricDef[JobStep]:
    return MetricDef(
        name=f"time_ms/{part}",
        unit="ms",
        # The mean, so that the parts of a step add up to no more than the step.
        meaning=f"{meaning}; mean over ranks",
        value=lambda step: _job_ms(step, part),
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
    MetricDef(
        name="throughput/tflops_per_s",
        unit="TFLOP/s",
        meaning="the whole job: operations of the model, without recomputation; no probe steps",
        value=lambda step: in_tera(job_flops_per_s(step)),
    ),
    MetricDef(
        name="throughput/mfu_ratio",
        unit="ratio",
        meaning="share of what the devices could do at most; on a CPU of a measured matrix product",
        value=job_mfu_ratio,
    ),
    *(_job_time(part, meaning) for part, meaning in STEP_PARTS.items()),
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


def _peak_part(category: str, meaning: str) -> MetricDef[RunRecord]:
    return MetricDef(
        name=f"summary/peak_{category}_mib",
        unit="MiB",
        meaning=f"of the fullest rank's peak: {meaning}",
        value=lambda run: in_mib((run.fullest.ledger or {}).get(category)) if run.fullest else None,
    )


def _median_ms(part: str, meaning: str) -> MetricDef[RunRecord]:
    name = "median" if part == "step" else part

    def value(run: RunRecord) -> float | None:
        seconds = getattr(run.slowest.step_s, name) if run.slowest else None
        return None if seconds is None else seconds * 1e3

    return MetricDef(
        name=f"summary/{part}_ms",
        unit="ms",
        meaning=f"{meaning}; median of the slowest rank",
        value=value,
    )


SUMMARY_METRICS: tuple[MetricDef[RunRecord], ...] = (
    MetricDef(
        name="summary/peak_mib",
        unit="MiB",
        meaning="peak of tensor bytes on the device of the fullest rank",
        value=lambda run: in_mib(known_max(*(row.peak_bytes for row in run.ranks))),
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
        name="summary/tflops_per_s",
        unit="TFLOP/s",
        meaning="the whole job, median after warm-up",
        value=lambda run: in_tera(run.flops_per_s),
    ),
    MetricDef(
        name="summary/mfu_ratio",
        unit="ratio",
        meaning="share of what the devices could do at most, median after warm-up",
        value=lambda run: run.mfu_ratio,
    ),
    MetricDef(
        name="summary/unattributed_ratio",
        unit="ratio",
        meaning="share of the fullest rank's peak that is of no category",
        value=lambda run: unattributed_ratio(run.fullest.ledger or {}) if run.fullest else None,
    ),
    MetricDef(
        name="summary/host_mib",
        unit="MiB",
        meaning="offloaded tensors in host memory, of the rank that keeps most there",
        value=lambda run: in_mib(known_max(*(row.host_bytes for row in run.ranks))),
    ),
    *(_peak_part(category, meaning) for category, meaning in CATEGORY_MEANINGS.items()),
    *(_median_ms(part, meaning) for part, meaning in STEP_PARTS.items()),
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

FORECAST_METRICS: tuple[MetricDef[RunRecord], ...] = (
    MetricDef(
        name="forecast/peak_mib",
        unit="MiB",
        meaning="peak of tensor bytes that was forecast, of the rank forecast to be the fullest",
        value=lambda run: in_mib(run.forecast_peak_bytes),
    ),
    MetricDef(
        name="forecast/error_ratio",
        unit="ratio",
        meaning="forecast peak less that rank's measured peak, over the latter",
        value=lambda run: run.forecast_error_ratio,
    ),
)

METRICS: tuple[MetricDef[Any], ...] = (
    *JOB_METRICS,
    *RANK_METRICS,
    *EVAL_METRICS,
    *SUMMARY_METRICS,
    *FORECAST_METRICS,
)
