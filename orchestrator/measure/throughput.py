"""Samples, tokens and operations per second of one step, of one rank and of the whole job.

Pure arithmetic.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median, quantiles

from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import RankSample

JobStep = tuple[RankSample, ...]
"""One step of the whole job: a sample of every rank."""


def job_samples_per_s(step: JobStep) -> float | None:
    """Samples of all ranks over the time of the slowest; `None` in a probe step."""
    return _per_s(sum(sample.n_samples for sample in step), step)


def job_tokens_per_s(step: JobStep) -> float | None:
    """Tokens of all ranks over the time of the slowest; `None` in a probe step or uncounted."""
    tokens = [sample.n_tokens for sample in step if sample.n_tokens is not None]
    return _per_s(sum(tokens), step) if len(tokens) == len(step) else None


def rank_samples_per_s(sample: RankSample) -> float | None:
    """Samples of one rank over its own time; `None` in a probe step."""
    return _per_s(sample.n_samples, (sample,))


def job_flops_per_s(step: JobStep) -> float | None:
    """Operations of all ranks over the time of the slowest; `None` where they are not counted."""
    flops = [sample.model_flops for sample in step if sample.model_flops is not None]
    return _per_s(sum(flops), step) if len(flops) == len(step) else None


def job_mfu_ratio(step: JobStep) -> float | None:
    """Share that `job_flops_per_s` is of what all devices could do at most (MFU)."""
    peaks = [s.peak_flops_per_s for s in step if s.peak_flops_per_s is not None]
    reached = job_flops_per_s(step)
    return reached / sum(peaks) if reached is not None and len(peaks) == len(step) else None


def rank_flops_per_s(sample: RankSample) -> float | None:
    """Operations of one rank over its own time; `None` in a probe step or uncounted."""
    return None if sample.model_flops is None else _per_s(sample.model_flops, (sample,))


def over_rounds(record: RunRecord, rounds: Sequence[Sequence[float]]) -> RunRecord:
    """A run's rates over all the rounds in which it was measured; rounds of one are the run's own.

    Args:
        record: of the first round.
        rounds: round -> samples/s of each measured step.
    """
    rates = [rate for one in rounds for rate in one]
    if len(rounds) < 2 or not rates or record.samples_per_s is None:
        return record
    now = median(rates)
    ratio = now / record.samples_per_s
    return replace(
        record,
        samples_per_s=now,
        samples_per_s_quartiles=quartiles(rates),
        tokens_per_s=_times(record.tokens_per_s, ratio),
        flops_per_s=_times(record.flops_per_s, ratio),
        mfu_ratio=_times(record.mfu_ratio, ratio),
    )


def quartiles(values: Sequence[float]) -> tuple[float, float] | None:
    """First and third quartile; `None` of fewer than two values."""
    if len(values) < 2:
        return None
    first, _, third = quantiles(values, n=4, method="inclusive")
    return first, third


def _times(rate: float | None, ratio: float) -> float | None:
    return None if rate is None else rate * ratio


def _per_s(amount: float, step: JobStep) -> float | None:
    slowest_s = max(sample.step_s for sample in step)
    return None if slowest_s <= 0 or any(s.probe for s in step) else amount / slowest_s
