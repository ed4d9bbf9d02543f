"""The closed form for so many parameters, without a model: every stage, ideal and as it is."""

from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.forecast.closed_form import closed_form
from orchestrator.forecast.setup import OptimizerName, Precision, Setup
from orchestrator.forecast.states import ideal_states_bytes
from orchestrator.measure.ledger import Ledger

_MOMENTS = {"adamw": 2, "adam": 2, "momentum": 1, "rmsprop": 1, "adafactor": 1, "lion": 1}
# DeepSpeed's defaults (runtime/zero/config.py, 0.19.8).
_BUCKET, _PREFETCH, _LIVE = 500_000_000, 50_000_000, 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One stage."""

    stage: int
    offload_optimizer: str
    ideal_states_bytes: int
    """Of weights, gradients and optimizer state, by the ZeRO paper."""
    resting_ledger: Ledger
    """What DeepSpeed holds between steps."""
    peak_bytes: int
    """The most it holds, activations not counted."""
    peak_phase: str
    host_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {**asdict(self), "resting_bytes": self.resting_bytes}

    @property
    def resting_bytes(self) -> int:
        """What DeepSpeed holds between steps, in all."""
        return sum(self.resting_ledger.values())


def by_count(
    n_params: int, *, n_ranks: int, precision: Precision, optimizer: OptimizerName
) -> list[StageRow]:
    """Every stage, and stages 2 and 3 with the optimizer on the host.

    Args:
        n_params: P, trainable parameters.
        n_ranks: N, at least 1.
        precision: of weights and activations.
        optimizer: update rule.
    """
    rows = []
    for stage, offload in ((0, False), (1, False), (2, False), (3, False), (2, True), (3, True)):
        setup = _setup(
            stage=stage, offload=offload, n_ranks=n_ranks, precision=precision, optimizer=optimizer
        )
        made = closed_form(setup, n_params=n_params)
        peaks = {phase: sum(ledger.values()) for phase, ledger in made.phase_ledgers.items()}
        phase = max(peaks, key=lambda one: peaks[one])
        rows.append(
            StageRow(
                stage=stage,
                offload_optimizer="cpu" if offload else "none",
                ideal_states_bytes=ideal_states_bytes(n_params, stage=stage, n_ranks=n_ranks),
                resting_ledger=made.resting_ledger,
                peak_bytes=peaks[phase],
                peak_phase=phase,
                host_bytes=sum(made.host_ledger.values()),
            )
        )
    return rows


def _setup(
    *, stage: int, offload: bool, n_ranks: int, precision: Precision, optimizer: OptimizerName
) -> Setup:
    """A strategy on GPUs with DeepSpeed's own sizes of buffers."""
    return Setup(
        engine="deepspeed",
        stage=stage,
        n_ranks=n_ranks,
        ranks_per_node=min(8, n_ranks),
        precision=precision,
        optimizer=optimizer,
        n_moments=_MOMENTS.get(optimizer, 0) + (offload and optimizer == "lion"),
        state_dtype="fp32",
        fused_optimizer=optimizer == "lion" or (offload and optimizer in ("adamw", "adam")),
        offload_optimizer="cpu" if offload else "none",
        offload_params="none",
        pinned=offload,
        activation_checkpointing=False,
        micro_batch_size=1,
        accumulation_steps=1,
        grad_accum_dtype=precision,
        communication_dtype=precision,
        overlap_comm=stage == 3,
        gradient_clipping=False,
        device="cuda",
        reduce_bucket_elements=_BUCKET,
        prefetch_bucket_elements=_PREFETCH,
        persistence_threshold_elements=100_000,
        max_live_elements=_LIVE,
        max_reuse_distance_elements=_LIVE,
        sub_group_elements=_LIVE,
        multi_rank_bucket_allreduce=True,
        swap_buffer_count=4,
        param_buffer_count=5,
        param_buffer_elements=100_000_000,
    )
