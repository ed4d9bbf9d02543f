"""Runs written by hand, for pictures: round numbers that can be added up in the head.

What a test does not speak of is unknown.
"""

from dataclasses import fields

from orchestrator.measure.ledger import empty_ledger
from orchestrator.measure.run_record import Circumstances, RankRow, RunRecord, StepTimes
from orchestrator.measure.sample import PHASES, MemoryTimeline, RankSample
from orchestrator.units import MIB


def ledger_mib(**mib):
    return {**empty_ledger(), **{name: round(amount * MIB) for name, amount in mib.items()}}


PEAK = ledger_mib(params=5, gradients=2, optimizer=8, activations=6, buffers=3, unattributed=1)
"""25 MiB."""
TIMES = StepTimes(
    median=0.140,
    p95=0.150,
    data=0.001,
    forward=0.022,
    backward=0.100,
    communication=0.080,
    optimizer=0.008,
    logging=0.002,
    checkpoint=None,
)
"""The parts add up to 133 ms, so the rest is 7 ms."""


def filled(cls, **known):
    """A record of which only so much is known."""
    return cls(**{**dict.fromkeys(field.name for field in fields(cls)), **known})


def rank_row(rank=0, *, ledger=PEAK, **changes):
    """A rank whose peak, if it has a ledger, came in backward."""
    peaks = dict.fromkeys(PHASES)
    if ledger is not None:
        peaks.update(init=0, backward=sum(ledger.values()))
    settings = {"phase_peak_bytes": peaks, "step_s": TIMES, **changes}
    return filled(RankRow, rank=rank, ledger=ledger, **settings)


def run_record(*ranks, name="resnet-zero2"):
    circumstances = filled(Circumstances, n_ranks=len(ranks))
    return filled(RunRecord, name=name, ranks=ranks, circumstances=circumstances)


def rank_sample(rank=0, step=1, **changes):
    return filled(RankSample, rank=rank, step=step, **{"step_s": 0.5, "probe": False, **changes})


def timeline(rank=0, *, moments=None, **changes):
    """A memory timeline; moments are seconds, phase and MiB of params and activations."""
    moments = moments or [
        (0.000, "forward", 5, 0),
        (0.010, "forward", 5, 6),
        (0.030, "backward", 5, 9),
        (0.080, "backward", 5, 2),
        (0.090, "step", 5, 0),
    ]
    at_s, phase, params, activations = zip(*moments, strict=True)
    ledger = {name: [0] * len(moments) for name in empty_ledger()}
    ledger["params"] = [mib * MIB for mib in params]
    ledger["activations"] = [mib * MIB for mib in activations]
    settings = {"at_s": list(at_s), "phase": list(phase), "ledger": ledger, **changes}
    return filled(MemoryTimeline, rank=rank, step=2, **settings)
