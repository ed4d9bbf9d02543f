"""What a run did cost: the record that `launch` prints, and its JSON form.

Plain numbers in bytes and seconds; `None` is unknown. Touches nothing outside.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.measure.ledger import Ledger
from orchestrator.measure.sample import PHASES, CudaMemory, EvalResult, GpuState

Outcome = Literal["ok", "failed", "oom", "diverged", "interrupted", "infeasible"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Where a step of one rank goes: medians over the measured steps."""

    median: float | None
    p95: float | None
    data: float | None
    forward: float | None
    backward: float | None
    communication: float | None
    """Median over the probe steps, the only ones that measure it."""
    optimizer: float | None
    logging: float | None
    checkpoint: float | None
    """Median over the steps in which something was saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRow:
    """What one rank took."""

    rank: int
    node: str | None
    device: str | None
    phase_peak_bytes: dict[str, int | None]
    """Peak tensor bytes on the device in init, forward, backward and step."""
    ledger: Ledger | None
    """The peak by category; `None` where it was not traced."""
    peak_ledgers: dict[str, Ledger]
    """Phase -> its peak by category, where it was traced."""
    edge_ledgers: dict[str, Ledger]
    """Phase -> what the device held as it ended, by category."""
    rss_peak_bytes: int | None
    phase_rss_peak_bytes: dict[str, int]
    """Most resident memory in each phase, of the step that was probed; `init` from the start."""
    phase_pss_bytes: dict[str, int]
    """Proportional share of resident memory as each phase ended; adds up over a node's ranks."""
    exact_rss: bool
    container_peak_bytes: int | None
    """Most memory that the rank's container ever held, page cache and all processes included."""
    host_bytes: int | None
    host_ledger: Ledger | None
    """`host_bytes` by category."""
    nvme_bytes: int | None
    cuda: CudaMemory | None
    """The largest of each over the run; `None` on a CPU."""
    gpu: GpuState | None
    """The largest of each over the run; `None` without a driver to ask."""
    samples_per_s: float | None
    flops_per_s: float | None
    """Operations of the rank's part of the model, without recomputation, over its own time."""
    mfu_ratio: float | None
    step_s: StepTimes

    @property
    def peak_phase(self) -> str | None:
        """The phase with the largest peak; the first of equals."""
        known = [phase for phase in PHASES if self.phase_peak_bytes.get(phase) is not None]
        return max(known, key=lambda phase: self.phase_peak_bytes[phase] or 0, default=None)

    @property
    def peak_bytes(self) -> int | None:
        """The largest of the phase peaks."""
        return None if self.peak_phase is None else self.phase_peak_bytes[self.peak_phase]

    def to_json(self) -> dict[str, Any]:
        """The rank's entry of `launch`'s JSON."""
        row = asdict(self)
        head = {key: row.pop(key) for key in ("rank", "node", "device")}
        return {**head, "peak_bytes": self.peak_bytes, "peak_phase": self.peak_phase, **row}


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the numbers hold for."""

    devices: tuple[str, ...]
    """Kinds of device, sorted."""
    n_ranks: int
    versions: dict[str, str]
    n_params: int | None
    n_measured_steps: int
    """Steps whose times the medians are over."""
    warmup_dropped: int
    """First steps left out of throughput; 0 when the run is too short to leave any out."""
    probe_steps_dropped: int
    """Steps left out of throughput because something was traced in them."""
    peak_flops_source: str | None
    """What MFU is a share of."""
    batch_norm: bool | None = None
    """The model normalises over its micro-batch, so that its loss depends on that one's size."""
    draws_random: bool | None = None
    """Its forward draws random numbers, as dropout does; each rank has a stream of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run did cost."""

    run_id: str | None
    """The tracking store's id; `None` while the store has not got the run."""
    name: str
    outcome: Outcome
    message: str | None
    """Why the run stopped early."""
    losses: tuple[float, ...]
    """One global loss an optimizer step."""
    skipped_steps: int | None
    samples_per_s: float | None
    """Median over the measured steps."""
    samples_per_s_quartiles: tuple[float, float] | None
    """First and third quartile: the spread of `samples_per_s`."""
    tokens_per_s: float | None
    flops_per_s: float | None
    """Operations of all ranks over the time of the slowest, median over the measured steps."""
    mfu_ratio: float | None
    first_step_s: float | None
    """From the command to the end of the first optimizer step."""
    startup_s: dict[str, float]
    """What starting took by part, on the slowest rank of each."""
    evals: tuple[EvalResult, ...]
    ranks: tuple[RankRow, ...]
    circumstances: Circumstances
    forecast: dict[str, Any] | None = None
    """What `forecast --json` says of the same plan; `None` where it was not asked for."""
    forecast_peak_bytes: int | None = None
    forecast_error_ratio: float | None = None
    """Forecast peak less measured peak of the rank that the forecast is of, over the latter."""

    @property
    def steps(self) -> int:
        """Optimizer steps that every rank finished."""
        return len(self.losses)

    @property
    def fullest(self) -> RankRow | None:
        """The rank with the largest peak; the first of equals."""
        known = [row for row in self.ranks if row.peak_bytes is not None]
        return max(known, key=lambda row: row.peak_bytes or 0, default=None)

    @property
    def slowest(self) -> RankRow | None:
        """The rank with the longest step; the first of equals."""
        known = [row for row in self.ranks if row.step_s.median is not None]
        return max(known, key=lambda row: row.step_s.median or 0, default=None)

    @property
    def peak_bytes(self) -> int | None:
        """Peak of the fullest rank."""
        return None if self.fullest is None else self.fullest.peak_bytes

    def to_json(self) -> dict[str, Any]:
        """The object that `launch --json` prints; what is not a finite number is null."""
        evals = [
            {key: value for key, value in asdict(result).items() if key != "time_unix_s"}
            for result in self.evals
        ]
        values = {
            "run_id": self.run_id,
            "name": self.name,
            "outcome": self.outcome,
            "message": self.message,
            "steps": self.steps,
            "losses": self.losses,
            "skipped_steps": self.skipped_steps,
            "samples_per_s": self.samples_per_s,
            "samples_per_s_quartiles": self.samples_per_s_quartiles,
            "tokens_per_s": self.tokens_per_s,
            "flops_per_s": self.flops_per_s,
            "mfu_ratio": self.mfu_ratio,
            "first_step_s": self.first_step_s,
            "startup_s": self.startup_s,
            "forecast": self.forecast,
            "forecast_error_ratio": self.forecast_error_ratio,
            "eval": evals[-1] if evals else None,
            "evals": evals,
            "ranks": [row.to_json() for row in self.ranks],
            "circumstances": asdict(self.circumstances),
        }
        cleaned: dict[str, Any] = _json_value(values)
        return cleaned


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value
