"""What one rank tells about itself: facts once, a sample a step, an evaluation now and then.

Plain numbers with a JSON form (`to_json`, `record_from_json`), so that the same line travels from
rank to controller, lies in the spool and is read back. Bytes and seconds; `None` is
unknown, never 0.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

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
    skipped_steps: int
    """Updates the engine left out so far because a gradient was not finite."""
    rss_bytes: int
    """Resident memory of the process."""
    probe: bool
    """Allocations were traced in this step, so its times are left out of throughput."""
    phase_peak_bytes: dict[str, int] | None
    """Peak tensor bytes on the device by phase (forward, backward, step): traced on probe steps on
    a CPU, from CUDA's allocator on every step of a GPU."""
    reserved_bytes: int | None
    """Peak held by CUDA's caching allocator."""
    host_bytes: int | None
    """Peak bytes of offloaded tensors in host memory (probe steps)."""
    nvme_bytes: int | None
    """Bytes in this rank's swap files on NVMe (probe steps)."""


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


Record = RankFacts | RankSample | EvalResult | RankFailure
_KINDS: dict[str, type[Record]] = {
    cls.kind: cls for cls in (RankFacts, RankSample, EvalResult, RankFailure)
}


def to_json(record: Record) -> dict[str, Any]:
    """Turn a record into plain JSON values, with its kind."""
    return {"kind": record.kind, **asdict(record)}


def record_from_json(values: dict[str, Any]) -> Record:
    """Turn `to_json`'s output back into the record.

    Raises:
        ValueError: the kind is unknown or a field is missing.
    """
    cls = _KINDS.get(str(values.get("kind")))
    if cls is None:
        raise ValueError(f"unknown record kind {values.get('kind')!r}")
    missing = [field.name for field in fields(cls) if field.name not in values]
    if missing:
        raise ValueError(f"a {cls.kind} record lacks {', '.join(missing)}")
    return cls(**{field.name: values[field.name] for field in fields(cls)})
