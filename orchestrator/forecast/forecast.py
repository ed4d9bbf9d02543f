"""The Forecast: what a rank will hold and send, and whether that fits. Plain numbers, JSON form.

Put together from a shadow run, or from the closed form where there is none; `assemble` does it.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.forecast.device_overhead import DeviceOverhead
from orchestrator.forecast.host import HostForecast
from orchestrator.forecast.shadow_result import DeviceMemory
from orchestrator.forecast.step_time import StepTime
from orchestrator.forecast.terms import Term
from orchestrator.forecast.verdict import Interval, Verdict
from orchestrator.forecast.wire import WireTerm
from orchestrator.measure.ledger import Ledger

Method = Literal["shadow", "closed_form"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one rank may take of its device."""

    n_bytes: int
    of: str
    """Whose memory it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """What the closed form says of the same rank."""

    phase_peak_bytes: dict[str, int]
    difference_ratio: float
    """Of the largest phase peak, relative to the shadow run's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One setting that would make it fit."""

    overrides: tuple[str, ...]
    """`key=value` each, as `--set` takes them."""
    strategy: str
    peak_bytes: int
    """Tensors on the device, at the fullest moment."""
    needed_bytes: int
    """Upper end of what the device must have."""
    method: Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a job will cost, before it runs."""

    strategy: str
    workers: int
    device: str
    """`cpu`, `cuda`, or the name of a device that the forecast was asked for."""
    rank: int
    """Which rank this is: the fullest of those that were looked at."""
    method: Method
    why_closed_form: str | None
    """Why no shadow run stands behind it, where one could."""
    n_params: int
    """Trainable parameters of the whole model."""
    global_batch_size: int
    phase_ledgers: dict[str, Ledger]
    """Phase (init, forward, backward, step) -> the device when it holds most."""
    host_ledger: Ledger
    nvme_bytes: int | None
    """In the rank's swap files; `None` when the strategy has none."""
    activations_known: bool
    """Whether activations are in the ledgers."""
    cross_check: CrossCheck | None
    device_memory: DeviceMemory | None
    """What CUDA's allocator makes of the tensors."""
    overhead: DeviceOverhead | None
    """What the device takes beyond the allocator."""
    needed: Interval
    """What the device must have: on a GPU the allocator's segments and the overhead."""
    host: HostForecast
    wire: tuple[WireTerm, ...]
    flops_per_step: int | None
    """Of this rank, recomputation included."""
    step_time: StepTime | None
    ideal_states_bytes: int
    """Weights, gradients and optimizer state of a rank as the ZeRO paper counts them."""
    terms: tuple[Term, ...]
    """The closed form's, each with its source."""
    budget: Budget | None
    node_budget_bytes: int | None
    verdict: Verdict
    reason: str
    remedy: Change | None
    """The smallest change that fits, where it does not."""
    notes: tuple[str, ...]

    @property
    def phase_peak_bytes(self) -> dict[str, int]:
        """Phase -> the most that the device holds."""
        return {phase: sum(ledger.values()) for phase, ledger in self.phase_ledgers.items()}

    @property
    def peak_phase(self) -> str:
        """The fullest phase; the first of equals."""
        peaks = self.phase_peak_bytes
        return max(peaks, key=lambda phase: peaks[phase])

    @property
    def peak_bytes(self) -> int:
        """Tensors on the device at the fullest moment."""
        return self.phase_peak_bytes[self.peak_phase]

    @property
    def asks_for_a_change(self) -> bool:
        """Whether it may not fit for what is known, and not only for what is not."""
        tight = self.verdict is Verdict.TIGHT and self.activations_known
        return tight or self.verdict is Verdict.TOO_BIG

    @property
    def host_bytes(self) -> int:
        """Tensors that the strategy keeps on the host."""
        return sum(self.host_ledger.values())

    @property
    def wire_bytes_per_step(self) -> int:
        """What the rank sends in one optimizer step."""
        return sum(term.wire_bytes for term in self.wire)

    def _told_ledger(self) -> dict[str, int | None]:
        ledger = self.phase_ledgers[self.peak_phase]
        return dict(ledger) if self.activations_known else {**ledger, "activations": None}

    def to_json(self) -> dict[str, Any]:
        """The object that `forecast --json` prints."""
        values = asdict(self)
        return {
            "strategy": self.strategy,
            "workers": self.workers,
            "rank": self.rank,
            "method": self.method,
            "device_bytes": {"total": self.peak_bytes, **self._told_ledger()},
            "phase_peak_bytes": self.phase_peak_bytes,
            "host_bytes": self.host_bytes,
            "nvme_bytes": self.nvme_bytes,
            "wire_bytes_per_step": self.wire_bytes_per_step,
            "ideal_states_bytes": self.ideal_states_bytes,
            "budget_bytes": None if self.budget is None else self.budget.n_bytes,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "peak_phase": self.peak_phase,
            **{key: value for key, value in values.items() if key not in _TOLD},
        }


_TOLD = {
    "strategy",
    "workers",
    "rank",
    "method",
    "nvme_bytes",
    "ideal_states_bytes",
    "verdict",
    "reason",
}
