"""The ShadowResult: what one rank of a job holds and sends, seen on fake tensors. Plain numbers."""

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.measure.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTensor:
    """One tensor of a sample."""

    shape: tuple[int, ...]
    """Without the batch axis."""
    dtype: str
    same_as: str | None = None
    """The name under which the same memory comes first: a language model's labels are its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """Calls of one kind in one phase of an optimizer step."""

    name: str
    """Of torch's operation, such as `allreduce_` or `_allgather_base_`."""
    phase: str
    n_calls: int
    payload_bytes: int
    """Of all calls: the whole tensor that is reduced, gathered or scattered, not a rank's share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """What CUDA's allocator would make of the tensors, in bytes."""

    allocated_peak_bytes: int
    """Tensors, rounded up to blocks."""
    reserved_peak_bytes: int
    """Segments taken from the device."""
    phase_reserved_bytes: dict[str, int]
    """The same by phase."""
    fragmentation_bytes: int
    """Reserved and not allocated at that moment."""
    n_segments: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowResult:
    """One rank of a job."""

    rank: int
    n_params: int
    """Trainable parameters of the whole model."""
    peak_ledgers: dict[str, Ledger]
    """Phase (init, forward, backward, step) -> the device when it held most."""
    host_ledger: Ledger
    """What the strategy keeps on the host, when it keeps most there."""
    nvme_bytes: int | None
    """In this rank's swap files; `None` when the strategy has none."""
    collectives: tuple[Collective, ...]
    """Of one optimizer step, every micro-batch counted."""
    flops_per_micro_batch: int
    """As computed, recomputation included."""
    device_memory: DeviceMemory | None
    """For a GPU; `None` on a CPU, whose allocator has no segments."""
    steps_agree: bool
    """The second and the third step held and sent the same."""
    scratch_unknown_bytes: int
    """Results of operations too large to be tried for what they take for themselves (CPU)."""
    micro_batch_size: int
    sample: dict[str, SampleTensor]
    """What one sample is made of."""
    seconds: float
    rss_peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ShadowResult":
        """Read it back."""
        memory = value["device_memory"]
        return cls(
            **{
                **value,
                "collectives": tuple(Collective(**item) for item in value["collectives"]),
                "device_memory": None if memory is None else DeviceMemory(**memory),
                "sample": {
                    name: SampleTensor(**{**tensor, "shape": tuple(tensor["shape"])})
                    for name, tensor in value["sample"].items()
                },
            }
        )

    @property
    def phase_peak_bytes(self) -> dict[str, int]:
        """Phase -> the most that the device held."""
        return {phase: sum(ledger.values()) for phase, ledger in self.peak_ledgers.items()}


def differences(fake: ShadowResult, real: ShadowResult) -> list[str]:
    """Say where a shadow and its real twin differ, a line each; empty when the shim holds."""
    return [
        f"{what} are {on_fake} on fake tensors and {on_real} on real ones"
        for what, on_fake, on_real in (
            ("peak bytes", fake.phase_peak_bytes, real.phase_peak_bytes),
            ("host bytes", fake.host_ledger, real.host_ledger),
            ("collectives", fake.collectives, real.collectives),
        )
        if on_fake != on_real
    ]
