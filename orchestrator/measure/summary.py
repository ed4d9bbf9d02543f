"""A run summed up: the `RunRecord` of all its records. Pure arithmetic; touches nothing outside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, quantiles

from orchestrator.measure.peaks import known_max
from orchestrator.measure.run_record import Circumstances, Outcome, RankRow, RunRecord, StepTimes
from orchestrator.measure.sample import (
    PHASES,
    EvalResult,
    RankFacts,
    RankFailure,
    RankSample,
    Record,
)
from orchestrator.measure.throughput import JobStep, job_samples_per_s, job_tokens_per_s

WARMUP_STEPS = 2
"""First steps left out of throughput: caches, lazy allocations and compilation happen in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """All records, sorted; of a step that was repeated after a restart the last one stays."""

    facts: dict[int, RankFacts] = field(default_factory=dict)
    samples: dict[int, dict[int, RankSample]] = field(default_factory=dict)
    """rank -> step -> sample."""
    evals: dict[int, EvalResult] = field(default_factory=dict)
    failures: list[RankFailure] = field(default_factory=list)

    def take(self, record: Record) -> None:
        match record:
            case RankFacts():
                self.facts[record.rank] = record
            case RankSample():
                self.samples.setdefault(record.rank, {})[record.step] = record
            case EvalResult():
                self.evals[record.step] = record
            case RankFailure():
                self.failures.append(record)

    @property
    def ranks(self) -> list[int]:
        return sorted(self.facts.keys() | self.samples.keys())

    @property
    def n_ranks(self) -> int:
        return max((facts.world_size for facts in self.facts.values()), default=len(self.samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The steps whose times count."""

    steps: frozenset[int]
    warmup_dropped: int
    probe_steps_dropped: int


def summarize(
    records: Iterable[Record],
    *,
    name: str,
    outcome: Outcome,
    started_unix_s: float | None,
    run_id: str | None = None,
    versions: dict[str, str] | None = None,
) -> RunRecord:
    """Sum up a run.

    Args:
        records: everything the ranks reported, each rank's in order.
        name: the run's name.
        outcome: how it ended.
        started_unix_s: when the command was given, seconds since 1970; `None`: unknown.
        run_id: the tracking store's id.
        versions: library -> version.

    Returns:
        Medians over the steps after the first two that traced no allocations; a run too short to
        leave any uses the first two as well. If every step was traced, times are unknown.
    """
    told = _Told()
    for record in records:
        told.take(record)
    steps = _complete_steps(told)
    measured = _measured(steps)
    counted = [step for number, step in steps.items() if number in measured.steps]
    job_rates = [rate for step in counted if (rate := job_samples_per_s(step)) is not None]
    token_rates = [rate for step in counted if (rate := job_tokens_per_s(step)) is not None]
    all_facts = told.facts.values()
    parts = {part for facts in all_facts for part in facts.startup_s}
    return RunRecord(
        run_id=run_id,
        name=name,
        outcome=outcome,
        message=told.failures[0].message if told.failures else None,
        losses=tuple(fmean(sample.loss for sample in step) for step in steps.values()),
        skipped_steps=max(
            (sample.skipped_steps for step in steps.values() for sample in step), default=None
        ),
        samples_per_s=_median(job_rates),
        samples_per_s_quartiles=_quartiles(job_rates),
        tokens_per_s=_median(token_rates),
        first_step_s=_first_step_s(steps, started_unix_s),
        startup_s={
            part: max(facts.startup_s.get(part, 0.0) for facts in all_facts)
            for part in sorted(parts)
        },
        evals=tuple(told.evals[step] for step in sorted(told.evals)),
        ranks=tuple(
            _rank_row(rank, told.facts.get(rank), told.samples.get(rank, {}), measured)
            for rank in told.ranks
        ),
        circumstances=Circumstances(
            devices=tuple(sorted({facts.device for facts in all_facts})),
            n_ranks=told.n_ranks,
            versions=versions or {},
            n_params=known_max(*(facts.n_params for facts in all_facts)),
            n_measured_steps=len(measured.steps),
            warmup_dropped=measured.warmup_dropped,
            probe_steps_dropped=measured.probe_steps_dropped,
        ),
    )


def _complete_steps(told: _Told) -> dict[int, JobStep]:
    """Optimizer step -> samples of all ranks, ascending; a step that lacks a rank is left out."""
    by_rank = [told.samples.get(rank, {}) for rank in told.ranks]
    if len(by_rank) < told.n_ranks or not by_rank:
        return {}
    common = sorted(set(by_rank[0]).intersection(*by_rank[1:]))
    return {step: tuple(samples[step] for samples in by_rank) for step in common}


def _measured(steps: dict[int, JobStep]) -> _Measured:
    probes = {number for number, step in steps.items() if any(sample.probe for sample in step)}
    numbers, warmup_dropped = list(steps)[WARMUP_STEPS:], WARMUP_STEPS
    if probes.issuperset(numbers):
        numbers, warmup_dropped = list(steps), 0
    kept = frozenset(numbers) - probes
    return _Measured(
        steps=kept,
        warmup_dropped=warmup_dropped,
        probe_steps_dropped=len(numbers) - len(kept),
    )


def _first_step_s(steps: dict[int, JobStep], started_unix_s: float | None) -> float | None:
    if not steps or started_unix_s is None:
        return None
    first = next(iter(steps.values()))
    return max(sample.time_unix_s for sample in first) - started_unix_s


def _rank_row(
    rank: int, facts: RankFacts | None, samples: dict[int, RankSample], measured: _Measured
) -> RankRow:
    counted = [sample for step, sample in samples.items() if step in measured.steps]
    seen = samples.values()
    peaks = {
        phase: known_max(*((sample.phase_peak_bytes or {}).get(phase) for sample in seen))
        for phase in PHASES
    }
    if facts is not None:
        peaks["init"] = known_max(peaks["init"], facts.init_peak_bytes)
    return RankRow(
        rank=rank,
        node=facts.node if facts else None,
        device=facts.device if facts else None,
        phase_peak_bytes=peaks,
        ledger=None,
        rss_peak_bytes=known_max(*(sample.rss_bytes for sample in seen)),
        host_bytes=known_max(*(sample.host_bytes for sample in seen)),
        nvme_bytes=known_max(*(sample.nvme_bytes for sample in seen)),
        samples_per_s=_median(
            [sample.n_samples / sample.step_s for sample in counted if sample.step_s > 0]
        ),
        step_s=StepTimes(
            median=_median([sample.step_s for sample in counted]),
            p95=_p95([sample.step_s for sample in counted]),
            data=_median([sample.data_s for sample in counted]),
            forward=_median([sample.forward_s for sample in counted]),
            backward=_median([sample.backward_s for sample in counted]),
            communication=_median(
                [s.communication_s for s in seen if s.communication_s is not None]
            ),
            optimizer=_median([sample.optimizer_s for sample in counted]),
        ),
    )


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _p95(values: Sequence[float]) -> float | None:
    """The 95th percentile, interpolated linearly between the values around it."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=20, method="inclusive")[-1]


def _quartiles(values: Sequence[float]) -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    first, _, third = quantiles(values, n=4, method="inclusive")
    return first, third
