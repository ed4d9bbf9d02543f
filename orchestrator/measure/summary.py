"""A run summed up: the `RunRecord` of all its records, taken one by one in bounded memory.

Pure arithmetic; touches nothing outside.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from orchestrator.measure.peaks import known_max
from orchestrator.measure.rank_summary import RankTally, median_of
from orchestrator.measure.run_record import Circumstances, Outcome, RunRecord
from orchestrator.measure.sample import (
    EvalResult,
    MemoryTimeline,
    RankFacts,
    RankFailure,
    RankSample,
    RankSpeed,
    Record,
)
from orchestrator.measure.throughput import (
    JobStep,
    job_flops_per_s,
    job_mfu_ratio,
    job_samples_per_s,
    job_tokens_per_s,
    quartiles,
)

WARMUP_STEPS = 2
"""First steps left out of throughput: caches, lazy allocations and compilation happen in them."""
FIRST_STEPS = 16
"""Steps that are kept whatever happens: the first, the probes, and some that are like the rest."""
MAX_SAMPLES = 100_000
"""Samples kept, about 100 MB; in a run that has more, steps are kept at equal distances."""


class RunTally:
    """All that a run's record needs of its records; `take` each, then `record`.

    Losses and whatever is largest are of all steps. Medians are over the steps that are kept.
    """

    def __init__(self, *, max_samples: int = MAX_SAMPLES) -> None:
        """Start with nothing known.

        Args:
            max_samples: how many to keep, of all ranks together.
        """
        self._max_samples = max_samples
        self._every = 1
        self._n_kept = 0
        self._ranks: dict[int, RankTally] = {}
        self._world_size: int | None = None
        self._speed: RankSpeed | None = None
        self._evals: dict[int, EvalResult] = {}
        self._message: str | None = None

    def take(self, record: Record) -> None:
        """Take one record; each rank's come in order."""
        match record:
            case RankFacts():
                self._world_size = record.world_size
                self._rank(record.rank).take_facts(record)
            case RankSample():
                self._take_sample(record)
            case MemoryTimeline():
                self._rank(record.rank).timeline = record
            case RankSpeed():
                self._speed = self._speed or record
            case EvalResult():
                self._evals[record.step] = record
            case RankFailure():
                self._message = self._message or record.message

    def kept_samples(self) -> list[RankSample]:
        """The samples that are kept, rank by rank."""
        return [sample for rank in self._in_order() for sample in rank.samples.values()]

    def samples_per_s(self) -> list[float]:
        """What the whole job reached in each measured step, in order."""
        steps = self._complete_steps(self._in_order())
        measured, *_ = _measured(steps)
        return _known(job_samples_per_s(step) for n, step in steps.items() if n in measured)

    def timelines(self) -> dict[int, MemoryTimeline]:
        """Rank -> its memory over the step that was traced."""
        return {rank.rank: rank.timeline for rank in self._in_order() if rank.timeline is not None}

    def record(
        self,
        *,
        name: str,
        outcome: Outcome,
        started_unix_s: float | None,
        run_id: str | None = None,
        versions: dict[str, str] | None = None,
    ) -> RunRecord:
        """Sum up the run.

        Args:
            name: the run's name.
            outcome: how it ended.
            started_unix_s: when the command was given, seconds since 1970; `None`: unknown.
            run_id: the tracking store's id.
            versions: library -> version.

        Returns:
            Medians over the steps after the first two that were no probes; a run too short to
            leave any uses the first two as well. If every step was a probe, times are unknown.
        """
        ranks = self._in_order()
        steps = self._complete_steps(ranks)
        measured, warmup_dropped, probes_dropped = _measured(steps)
        counted = [step for number, step in steps.items() if number in measured]
        job_rates = _known(map(job_samples_per_s, counted))
        facts = [rank.facts for rank in ranks if rank.facts is not None]
        parts = {part for one in facts for part in one.startup_s}
        return RunRecord(
            run_id=run_id,
            name=name,
            outcome=outcome,
            message=self._message,
            losses=self._losses(ranks),
            skipped_steps=max(
                (s.skipped_steps for step in steps.values() for s in step), default=None
            ),
            samples_per_s=median_of(job_rates),
            samples_per_s_quartiles=quartiles(job_rates),
            tokens_per_s=median_of(_known(map(job_tokens_per_s, counted))),
            flops_per_s=median_of(_known(map(job_flops_per_s, counted))),
            mfu_ratio=median_of(_known(map(job_mfu_ratio, counted))),
            first_step_s=_first_step_s(steps, started_unix_s),
            startup_s={
                part: max(one.startup_s.get(part, 0.0) for one in facts) for part in sorted(parts)
            },
            evals=tuple(self._evals[step] for step in sorted(self._evals)),
            ranks=tuple(rank.row(measured) for rank in ranks),
            circumstances=Circumstances(
                devices=tuple(sorted({one.device for one in facts})),
                n_ranks=self._n_ranks(),
                versions=versions or {},
                n_params=known_max(*(one.n_params for one in facts)),
                n_measured_steps=len(measured),
                warmup_dropped=warmup_dropped,
                probe_steps_dropped=probes_dropped,
                peak_flops_source=self._speed.peak_source if self._speed else None,
                batch_norm=self._speed.batch_norm if self._speed else None,
                draws_random=self._speed.draws_random if self._speed else None,
            ),
        )

    def _rank(self, rank: int) -> RankTally:
        return self._ranks.setdefault(rank, RankTally(rank=rank))

    def _in_order(self) -> list[RankTally]:
        return [self._ranks[rank] for rank in sorted(self._ranks)]

    def _n_ranks(self) -> int:
        return self._world_size if self._world_size is not None else len(self._ranks)

    def _take_sample(self, sample: RankSample) -> None:
        rank = self._rank(sample.rank)
        before = len(rank.samples)
        # The newest step stays until the next one comes, so that there is always a last one.
        last = next(reversed(rank.samples), None)
        if last is not None and not self._is_kept(last):
            del rank.samples[last]
        rank.take(sample)
        self._n_kept += len(rank.samples) - before
        if self._n_kept > self._max_samples:
            self._thin_out()

    def _is_kept(self, step: int) -> bool:
        return step <= FIRST_STEPS or step % self._every == 0

    def _thin_out(self) -> None:
        self._every *= 2
        for rank in self._ranks.values():
            rank.samples = {s: kept for s, kept in rank.samples.items() if self._is_kept(s)}
        self._n_kept = sum(len(rank.samples) for rank in self._ranks.values())

    def _complete_steps(self, ranks: Sequence[RankTally]) -> dict[int, JobStep]:
        """Optimizer step -> samples of all ranks, ascending; one that lacks a rank is left out."""
        if len(ranks) < self._n_ranks() or not ranks:
            return {}
        common = set(ranks[0].samples).intersection(*(rank.samples for rank in ranks[1:]))
        return {step: tuple(rank.samples[step] for rank in ranks) for step in sorted(common)}

    def _losses(self, ranks: Sequence[RankTally]) -> tuple[float, ...]:
        """The global loss of every step that all ranks reported."""
        if len(ranks) < self._n_ranks() or not ranks:
            return ()
        told = zip(*(rank.has_loss for rank in ranks), strict=False)
        losses = zip(*(rank.losses for rank in ranks), strict=False)
        return tuple(fmean(step) for step, there in zip(losses, told, strict=True) if all(there))


def summarize(
    records: Iterable[Record],
    *,
    name: str,
    outcome: Outcome,
    started_unix_s: float | None,
    run_id: str | None = None,
    versions: dict[str, str] | None = None,
) -> RunRecord:
    """Sum up all of a run's records at once; see `RunTally.record`."""
    tally = RunTally()
    for record in records:
        tally.take(record)
    return tally.record(
        name=name,
        outcome=outcome,
        started_unix_s=started_unix_s,
        run_id=run_id,
        versions=versions,
    )


def _measured(steps: dict[int, JobStep]) -> tuple[frozenset[int], int, int]:
    """The steps whose times count; how many were left out as warm-up, and how many as probes."""
    probes = {number for number, step in steps.items() if any(sample.probe for sample in step)}
    numbers, warmup_dropped = list(steps)[WARMUP_STEPS:], WARMUP_STEPS
    if probes.issuperset(numbers):
        numbers, warmup_dropped = list(steps), 0
    kept = frozenset(numbers) - probes
    return kept, warmup_dropped, len(numbers) - len(kept)


def _first_step_s(steps: dict[int, JobStep], started_unix_s: float | None) -> float | None:
    if not steps or started_unix_s is None:
        return None
    first = next(iter(steps.values()))
    return max(sample.time_unix_s for sample in first) - started_unix_s


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
