"""One rank summed up as its samples come: the row of it that a run's record keeps.

Pure arithmetic. What is largest and what comes once is taken as it passes; times are medians over
the samples that are kept.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TypeVar

from orchestrator.measure.peaks import RankPeaks, known_max
from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.measure.sample import (
    PHASES,
    CudaMemory,
    GpuState,
    MemoryTimeline,
    ProbedMemory,
    RankFacts,
    RankSample,
    ResidentMemory,
)

Value = TypeVar("Value")


@dataclass(slots=True, kw_only=True)
class RankTally:
    """What is known of one rank so far."""

    rank: int
    facts: RankFacts | None = None
    peaks: RankPeaks = field(default_factory=RankPeaks)
    phase_peak_bytes: dict[str, int] = field(default_factory=dict)
    probed: ProbedMemory | None = None
    resident: ResidentMemory | None = None
    timeline: MemoryTimeline | None = None
    cuda: CudaMemory | None = None
    gpu: GpuState | None = None
    container_peak_bytes: int | None = None
    samples: dict[int, RankSample] = field(default_factory=dict)
    """Step -> sample, of the steps that are kept."""
    losses: "array[float]" = field(default_factory=lambda: array("d"))
    """Loss of every step, from the first on."""
    has_loss: bytearray = field(default_factory=bytearray)
    """Whether there is one; the loss itself may be anything."""

    def take_facts(self, facts: RankFacts) -> None:
        """Take what the rank says of itself."""
        self.facts = facts
        self.peaks = self.peaks.after_facts(facts)

    def take(self, sample: RankSample) -> None:
        """Take one step; of a step that was repeated after a restart the last one stays."""
        self.samples[sample.step] = sample
        self.peaks = self.peaks.after_sample(sample)
        for phase, n_bytes in (sample.phase_peak_bytes or {}).items():
            self.phase_peak_bytes[phase] = max(self.phase_peak_bytes.get(phase, 0), n_bytes)
        self.probed = sample.probed or self.probed
        self.resident = sample.resident or self.resident
        self.cuda = _largest_cuda(self.cuda, sample.cuda)
        self.gpu = _largest_gpu(self.gpu, sample.gpu)
        self.container_peak_bytes = known_max(
            self.container_peak_bytes, sample.container_peak_bytes
        )
        missing = sample.step - len(self.losses)
        self.losses.extend([0.0] * missing)
        self.has_loss.extend(bytes(max(0, missing)))
        self.losses[sample.step - 1] = sample.loss
        self.has_loss[sample.step - 1] = 1

    def row(self, measured_steps: Set[int]) -> RankRow:
        """Sum up.

        Args:
            measured_steps: the steps whose times count.
        """
        facts, probed, resident = self.facts, self.probed, self.resident
        counted = [sample for step, sample in self.samples.items() if step in measured_steps]
        init_bytes = facts.init_peak_bytes if facts else None
        phase_peaks = {phase: self.phase_peak_bytes.get(phase) for phase in PHASES}
        return RankRow(
            rank=self.rank,
            node=facts.node if facts else None,
            device=facts.device if facts else None,
            phase_peak_bytes={**phase_peaks, "init": known_max(phase_peaks["init"], init_bytes)},
            ledger=self.peaks.ledger,
            peak_ledgers=_phases(
                facts.init_peak_ledger if facts else None, probed.peak_ledgers if probed else None
            ),
            edge_ledgers=_phases(
                facts.init_edge_ledger if facts else None, probed.edge_ledgers if probed else None
            ),
            rss_peak_bytes=self.peaks.rss_bytes,
            phase_rss_peak_bytes=_phases(
                facts.init_rss_peak_bytes if facts else None,
                resident.peak_bytes if resident else None,
            ),
            phase_pss_bytes=_phases(
                facts.init_pss_bytes if facts else None, resident.pss_bytes if resident else None
            ),
            exact_rss=facts is not None and facts.exact_rss,
            container_peak_bytes=self.container_peak_bytes,
            host_bytes=self.peaks.host_bytes,
            host_ledger=probed.host_ledger if probed else None,
            nvme_bytes=self.peaks.nvme_bytes,
            cuda=self.cuda,
            gpu=self.gpu,
            samples_per_s=median_of(_rates(counted, lambda s: s.n_samples)),
            flops_per_s=median_of(_rates(counted, lambda s: s.model_flops)),
            mfu_ratio=median_of(_rates(counted, _share_of_peak)),
            step_s=_times(counted, list(self.samples.values())),
        )


def median_of(values: Sequence[float]) -> float | None:
    """The median; `None` of nothing."""
    return median(values) if values else None


def _phases(init: Value | None, phases: Mapping[str, Value] | None) -> dict[str, Value]:
    """Phase -> value, construction first."""
    first = {} if init is None else {"init": init}
    return {**first, **(phases or {})}


def _largest_cuda(one: CudaMemory | None, other: CudaMemory | None) -> CudaMemory | None:
    if one is None or other is None:
        return one or other
    return CudaMemory(
        reserved_bytes=max(one.reserved_bytes, other.reserved_bytes),
        cached_bytes=max(one.cached_bytes, other.cached_bytes),
        fragmented_bytes=max(one.fragmented_bytes, other.fragmented_bytes),
        n_retries=max(one.n_retries, other.n_retries),
    )


def _largest_gpu(one: GpuState | None, other: GpuState | None) -> GpuState | None:
    if one is None or other is None:
        return one or other
    return GpuState(
        utilization_ratio=_largest(one.utilization_ratio, other.utilization_ratio),
        used_bytes=known_max(one.used_bytes, other.used_bytes),
        beyond_allocator_bytes=known_max(one.beyond_allocator_bytes, other.beyond_allocator_bytes),
        power_w=_largest(one.power_w, other.power_w),
    )


def _largest(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _share_of_peak(sample: RankSample) -> float | None:
    if sample.model_flops is None or sample.peak_flops_per_s is None:
        return None
    return sample.model_flops / sample.peak_flops_per_s


def _rates(
    samples: Iterable[RankSample], amount: Callable[[RankSample], float | None]
) -> list[float]:
    return [
        value / sample.step_s
        for sample in samples
        if sample.step_s > 0 and (value := amount(sample)) is not None
    ]


def _times(counted: Sequence[RankSample], seen: Sequence[RankSample]) -> StepTimes:
    def median_s(part: str, samples: Sequence[RankSample] = counted) -> float | None:
        values = (getattr(sample, f"{part}_s") for sample in samples)
        return median_of([value for value in values if value is not None])

    return StepTimes(
        median=median_s("step"),
        p95=_p95([sample.step_s for sample in counted]),
        data=median_s("data"),
        forward=median_s("forward"),
        backward=median_s("backward"),
        communication=median_s("communication", seen),
        optimizer=median_s("optimizer"),
        logging=median_s("logging"),
        checkpoint=median_s("checkpoint", seen),
    )


def _p95(values: Sequence[float]) -> float | None:
    """The 95th percentile, interpolated linearly between the values around it."""
    if len(values) < 2:
        return values[0] if values else None
    return quantiles(values, n=20, method="inclusive")[-1]
