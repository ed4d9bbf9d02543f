"""Entries written by hand: one strategy each, with round numbers. What is not told is unknown."""

from dataclasses import fields
from typing import Any

from orchestrator.compare.entry import Entry
from orchestrator.measure.ledger import empty_ledger
from orchestrator.measure.run_record import Circumstances, RankRow, RunRecord, StepTimes
from orchestrator.measure.sample import PHASES
from orchestrator.units import MIB

JOB: dict[str, Any] = {
    "name": "made-up",
    "model": {"family": "mlp", "config": {"hidden_sizes": [8]}},
    "data": {"source": "digits", "image_size": 8},
    "training": {
        "steps": 4,
        "global_batch_size": 16,
        "micro_batch_size": 4,
        "precision": "fp32",
        "activation_checkpointing": False,
        "engine": "deepspeed",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "seed": 0,
    },
    "zero": {"stage": 0, "offload_optimizer": "none", "offload_params": "none"},
    "resources": {"workers": 2, "device": "cpu"},
}
LEDGER: dict[str, float] = {"params": 4, "gradients": 2, "optimizer": 8, "activations": 6}
"""MiB; 20 in all."""


def entry(  # noqa: PLR0913 - each is a knob of its own
    name: str = "zero0",
    *,
    ledger_mib: dict[str, float] | None = None,
    losses: tuple[float, ...] = (2.0, 1.5, 1.25, 1.125),
    rounds: tuple[tuple[float, ...], ...] = ((100.0, 101.0, 99.0, 100.0),),
    outcome: str = "ok",
    message: str | None = None,
    job: dict[str, Any] | None = None,
    workers: int = 2,
    micro_batch_size: int = 4,
    global_batch_size: int = 16,
    record: dict[str, Any] | None = None,
    circumstances: dict[str, Any] | None = None,
    **changes: Any,
) -> Entry:
    """Make an entry.

    Args:
        job: sections laid over `JOB`'s, each over its own.
        record: fields of its `RunRecord`.
        circumstances: fields of its `Circumstances`.
        changes: fields of the entry.
    """
    sections = {key: {**JOB[key], **(job or {}).get(key, {})} for key in JOB if key != "name"}
    mib = LEDGER if ledger_mib is None else ledger_mib
    ranks = tuple(rank_row(rank, mib) for rank in range(workers)) if rounds or losses else ()
    told = {"n_ranks": workers, "devices": ("cpu",), "versions": {"torch": "2.13.0"}}
    made = _filled(
        RunRecord,
        name=name,
        outcome=outcome,
        message=message,
        losses=losses,
        evals=(),
        startup_s={},
        ranks=ranks,
        circumstances=_filled(Circumstances, **{**told, **(circumstances or {})}),
        **(record or {}),
    )
    settings: dict[str, Any] = {
        "strategy": name,
        "device": "cpu",
        "accumulation_steps": global_batch_size // (micro_batch_size * workers),
        "n_params": 1000,
        **changes,
    }
    return Entry(
        name=name,
        job={"name": "made-up", **sections},
        record=made,
        rounds=rounds,
        workers=workers,
        micro_batch_size=micro_batch_size,
        global_batch_size=global_batch_size,
        **settings,
    )


def rank_row(rank: int, mib: dict[str, float]) -> RankRow:
    """A rank whose peak came in backward; rank 1 holds 1 MiB of temporaries more than rank 0."""
    ledger = {**empty_ledger(), **{name: round(n * MIB) for name, n in mib.items()}}
    ledger["temporaries"] += rank * MIB
    peaks = {**dict.fromkeys(PHASES), "init": 0, "backward": sum(ledger.values())}
    row: RankRow = _filled(
        RankRow,
        rank=rank,
        node="n0",
        device="cpu",
        ledger=ledger,
        phase_peak_bytes=peaks,
        peak_ledgers={"backward": ledger},
        edge_ledgers={},
        phase_rss_peak_bytes={},
        phase_pss_bytes={},
        exact_rss=False,
        host_bytes=0,
        step_s=_filled(StepTimes, median=0.1, data=0.01, forward=0.03, backward=0.05),
    )
    return row


def _filled(cls: Any, **known: Any) -> Any:
    """A record of which only so much is known."""
    return cls(**{**dict.fromkeys(field.name for field in fields(cls)), **known})
