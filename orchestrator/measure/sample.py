"""What one rank tells about itself: facts once, a sample a step, an evaluation now and then.

Plain numbers with a JSON form (`sample_json`), so that the same line travels from rank to
controller, lies in the spool and is read back. Bytes and seconds; `None` is
unknown, never 0.
"""

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.measure.ledger import Ledger

PHASES = ("init", "forward", "backward", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFacts:
    """What stays the same while a rank runs; sent once, before its first step."""

    kind: ClassVar[str] = "facts"

    rank: int
    world_size: int
    node: str
    device: str
    """`cpu`, or the GPU's name."""
    pid: int
    time_unix_s: float
    n_params: int
    """Trainable parameters, tied ones counted once; full size, not the shard."""
    total_steps: int
    """Optimizer steps this run will take."""
    n_train_samples: int
    n_eval_samples: int
    startup_s: dict[str, float]
    """What starting took, by part: imports, process group, data, model, engine."""
    init_peak_bytes: int | None
    """Largest sum of tensor bytes on the device while model and engine were built."""
    init_peak_ledger: Ledger | None
    """What that was."""
    init_edge_ledger: Ledger | None
    """What the device held once the engine was built."""
    init_rss_peak_bytes: int | None
    """Most resident memory of the process until then."""
    init_pss_bytes: int | None
    """Its proportional share of resident memory then."""
    exact_rss: bool
    """Resident memory follows what is allocated (`measure.exact_rss`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSample:
    """One rank, one optimizer step."""

    kind: ClassVar[str] = "sample"

    rank: int
    step: int
    """Optimizer step, from 1."""
    time_unix_s: float
    """When the step ended, by the rank's clock."""
    loss: float
    """Mean over the rank's samples of this step; the global loss is the mean over ranks."""
    lr: float
    grad_norm: float | None
    """Norm of the global gradient before clipping; the same on every rank."""
    n_samples: int
    n_tokens: int | None
    """Tokens this rank computed, for sequence data."""
    step_s: float
    """From the end of the step before to the end of this one: the parts below and the rest."""
    data_s: float
    forward_s: float
    backward_s: float
    optimizer_s: float
    communication_s: float | None
    """Time inside collectives, waiting for peers included; overlaps backward and optimizer. Probe
    steps only."""
    logging_s: float
    """Between the end of the step before and the beginning of this one: handing on what was
    measured, and what else the loop does there."""
    checkpoint_s: float | None
    """Saving training state after the step before; `None` when nothing was saved."""
    skipped_steps: int
    """Updates the engine left out so far because a gradient was not finite."""
    rss_peak_bytes: int | None
    """Most resident memory of the process since it began, or since the last probe."""
    probe: bool
    """Something was traced in this step, so its times are left out of throughput."""
    phase_peak_bytes: dict[str, int] | None
    """Peak tensor bytes on the device by phase (forward, backward, step): traced on probe steps on
    a CPU, from CUDA's allocator on every step of a GPU."""
    probed: "ProbedMemory | None"
    """What the memory probe saw."""
    resident: "ResidentMemory | None"
    """What the probe of resident memory saw."""
    host_bytes: int | None
    """Peak bytes of offloaded tensors in host memory (memory probe)."""
    nvme_bytes: int | None
    """Bytes in this rank's swap files on NVMe (probe steps)."""
    container_peak_bytes: int | None
    """Most memory that the container ever held, all its processes and page cache included (probe
    steps and the last)."""
    cuda: "CudaMemory | None"
    """What a GPU holds beyond tensors."""
    gpu: "GpuState | None"
    """What the driver says of the GPU, now and then."""
    model_flops: float | None
    """Floating-point operations of this rank's part of the step, without recomputation."""
    peak_flops_per_s: float | None
    """What this rank's device could do at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedMemory:
    """What one step held, by category; phases are forward, backward and step."""

    peak_ledgers: dict[str, Ledger]
    """Phase -> the device when it held most."""
    edge_ledgers: dict[str, Ledger]
    """Phase -> the device when the phase ended, the last time it did."""
    host_ledger: Ledger
    """What the strategy kept on the host, when it kept most there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentMemory:
    """Resident memory of the process in one step; phases are forward, backward and step."""

    start_bytes: int
    """As the step began, with what had been freed given back to the system."""
    peak_bytes: dict[str, int]
    """Phase -> the most of it; empty where the kernel cannot tell."""
    pss_bytes: dict[str, int]
    """Phase -> proportional share when it ended: a page that n processes share counts 1/n, so that
    the ranks of a node can be added up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaMemory:
    """What CUDA's caching allocator holds, in bytes."""

    reserved_bytes: int
    """Most memory taken from the device in this step."""
    cached_bytes: int
    """Of what is reserved as the step ends, what no tensor uses."""
    fragmented_bytes: int
    """Of that, what lies between tensors and cannot be given back to the device."""
    n_retries: int
    """Allocations so far that had to empty the cache first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuState:
    """What NVIDIA's driver says of one GPU."""

    utilization_ratio: float | None
    """Share of the driver's last sampling window (a sixth of a second to a second) in which any
    kernel ran: not how well it was used."""
    used_bytes: int | None
    """Memory taken by all processes on the device."""
    beyond_allocator_bytes: int | None
    """Of that, what PyTorch's allocator does not hold: the CUDA context, NCCL, libraries, and other
    processes."""
    power_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryTimeline:
    """The memory probe of one rank over its step, as columns of equal length."""

    kind: ClassVar[str] = "timeline"

    rank: int
    step: int
    time_unix_s: float
    at_s: list[float]
    """Seconds from the beginning of the step."""
    phase: list[str]
    ledger: dict[str, list[int]]
    """Category -> bytes on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSpeed:
    """What a rank computes in a step, and what its device could; sent once, after the probes."""

    kind: ClassVar[str] = "speed"

    rank: int
    time_unix_s: float
    model_flops: float | None
    """Floating-point operations of this rank's part of a step, without recomputation."""
    peak_flops_per_s: float | None
    peak_source: str | None
    """Where that number is from: a data sheet, or measured on this machine."""
    batch_norm: bool | None
    """The model has layers that normalise over the micro-batch."""
    draws_random: bool | None
    """Its forward drew random numbers, as dropout does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSample:
    """What one machine was doing; told by its first rank, now and then."""

    kind: ClassVar[str] = "node"

    node: str
    rank: int
    """Who tells."""
    time_unix_s: float
    number: int
    """From 0."""
    values: dict[str, float]
    """Named as MLflow's system metrics are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """One evaluation over the whole evaluation set; the same on every rank, sent by rank 0."""

    kind: ClassVar[str] = "eval"

    step: int
    time_unix_s: float
    loss: float
    accuracy: float | None
    """Share of right labels, for classification."""
    n_samples: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFailure:
    """Why a rank stopped."""

    kind: ClassVar[str] = "failure"

    rank: int | None
    step: int | None
    time_unix_s: float
    outcome: str
    """failed, oom, diverged or interrupted."""
    message: str
    details: str
    """The traceback, for the log file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDone:
    """A rank has finished its run; nothing of it comes after."""

    kind: ClassVar[str] = "done"

    rank: int
    time_unix_s: float


Record = (
    RankFacts
    | RankSample
    | MemoryTimeline
    | RankSpeed
    | NodeSample
    | EvalResult
    | RankFailure
    | RankDone
)
