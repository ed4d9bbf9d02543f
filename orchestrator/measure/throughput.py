"""Samples, tokens and operations per second of one step, of one rank and of the whole job.

Pure arithmetic.
"""

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


def _per_s(amount: float, step: JobStep) -> float | None:
    slowest_s = max(sample.step_s for sample in step)
    return None if slowest_s <= 0 or any(s.probe for s in step) else amount / slowest_s
