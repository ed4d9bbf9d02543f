"""The part of the table of metrics that is about single ranks: memory, the GPU, time.

Pure arithmetic; touches nothing outside. What is unknown is `None`.
"""

from collections.abc import Callable

from orchestrator.measure.ledger import CATEGORY_MEANINGS
from orchestrator.measure.metric_def import STEP_PARTS, MetricDef, in_mib, in_tera, part_ms
from orchestrator.measure.peaks import RankPeaks, RankStep
from orchestrator.measure.sample import RankSample
from orchestrator.measure.throughput import rank_flops_per_s, rank_samples_per_s

_RUNNING_PEAKS: dict[str, tuple[str, Callable[[RankPeaks], int | None]]] = {
    "peak": (
        "running peak of tensor bytes on the device: construction, forward, backward, step",
        lambda peaks: peaks.device_bytes,
    ),
    "reserved": (
        "running peak of what CUDA's caching allocator holds",
        lambda peaks: peaks.reserved_bytes,
    ),
    "rss": (
        "running peak of the process's resident memory",
        lambda peaks: peaks.rss_bytes,
    ),
    "pss": (
        "running peak of the process's share of resident memory, pages shared by n counted 1/n, "
        "so that the ranks of a node add up",
        lambda peaks: peaks.pss_bytes,
    ),
    "host": ("running peak of offloaded tensors in host memory", lambda peaks: peaks.host_bytes),
    "nvme": ("running peak of bytes swapped out to NVMe", lambda peaks: peaks.nvme_bytes),
}


def _rank_memory(
    name: str, meaning: str, bytes_of: Callable[[RankPeaks], int | None]
) -> MetricDef[RankStep]:
    return MetricDef(
        name=f"memory_{name}_mib/{{rank}}",
        unit="MiB",
        meaning=meaning,
        value=lambda rank: in_mib(bytes_of(rank.peaks)),
        rarely_changes=True,
    )


def _ledger_line(category: str, meaning: str) -> MetricDef[RankStep]:
    return MetricDef(
        name=f"memory_{category}_mib/{{rank}}",
        unit="MiB",
        meaning=f"at the running peak: {meaning}",
        value=lambda rank: in_mib((rank.peaks.ledger or {}).get(category)),
        rarely_changes=True,
    )


_GPU_VALUES: tuple[tuple[str, str, str, Callable[[RankSample], float | None]], ...] = (
    (
        "memory_cached_mib",
        "MiB",
        "held by CUDA's caching allocator as the step ends and used by no tensor",
        lambda sample: in_mib(sample.cuda.cached_bytes) if sample.cuda else None,
    ),
    (
        "memory_fragmented_mib",
        "MiB",
        "of what is cached, what lies between tensors and cannot be given back",
        lambda sample: in_mib(sample.cuda.fragmented_bytes) if sample.cuda else None,
    ),
    (
        "memory_context_mib",
        "MiB",
        "taken on the GPU beyond PyTorch's allocator: CUDA context, NCCL, libraries, others",
        lambda sample: in_mib(sample.gpu.beyond_allocator_bytes) if sample.gpu else None,
    ),
    (
        "gpu_utilization_ratio",
        "ratio",
        "share of the driver's last window in which any kernel ran; not how well it was used",
        lambda sample: sample.gpu.utilization_ratio if sample.gpu else None,
    ),
    (
        "gpu_power_w",
        "W",
        "power the GPU draws",
        lambda sample: sample.gpu.power_w if sample.gpu else None,
    ),
)


def _gpu_value(
    name: str, unit: str, meaning: str, value: Callable[[RankSample], float | None]
) -> MetricDef[RankStep]:
    return MetricDef(
        name=f"{name}/{{rank}}", unit=unit, meaning=meaning, value=lambda rank: value(rank.sample)
    )


def _rank_time(part: str, meaning: str) -> MetricDef[RankStep]:
    return MetricDef(
        name=f"time_ms_{part}/{{rank}}",
        unit="ms",
        meaning=meaning,
        value=lambda rank: part_ms(rank.sample, part),
    )


RANK_METRICS: tuple[MetricDef[RankStep], ...] = (
    MetricDef(
        name="throughput_per_rank/{rank}",
        unit="samples/s",
        meaning="samples of one rank over its own time; no probe steps",
        value=lambda rank: rank_samples_per_s(rank.sample),
    ),
    MetricDef(
        name="tflops_per_rank/{rank}",
        unit="TFLOP/s",
        meaning="operations of one rank's part of the model over its own time; no probe steps",
        value=lambda rank: in_tera(rank_flops_per_s(rank.sample)),
    ),
    *(
        _rank_memory(name, meaning, bytes_of)
        for name, (meaning, bytes_of) in _RUNNING_PEAKS.items()
    ),
    *(_ledger_line(category, meaning) for category, meaning in CATEGORY_MEANINGS.items()),
    *(_gpu_value(name, unit, meaning, value) for name, unit, meaning, value in _GPU_VALUES),
    *(_rank_time(part, meaning) for part, meaning in STEP_PARTS.items()),
)
