"""The closed form: what a rank's memory will hold at the peak of each phase, from sizes alone.

Pure arithmetic: model states as DeepSpeed keeps them, the copies it makes on the way, and one
activation trace of the bare model. Every piece is told with its formula and source.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.forecast.activations import (
    NOTHING,
    SOURCE,
    arrivals_of,
    forward_peak_of,
    trace_at,
    without_trace,
)
from orchestrator.forecast.construction import init_moments
from orchestrator.forecast.layout import Layout, layout_of
from orchestrator.forecast.profile import ActivationTrace, ModelProfile
from orchestrator.forecast.reduction import backward_moments, carried_parts
from orchestrator.forecast.setup import Setup
from orchestrator.forecast.sharded import guessed_moments, sharded_moments
from orchestrator.forecast.states import nvme_bytes, resting_parts
from orchestrator.forecast.terms import (
    Part,
    Term,
    fullest,
    ledger_at,
    terms_of,
)
from orchestrator.forecast.transients import step_moments, update_part
from orchestrator.measure.ledger import Ledger

PHASES = ("init", "forward", "backward", "step")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """What a rank will hold."""

    phase_ledgers: dict[str, Ledger]
    """Phase -> what the device holds when it holds most, by category."""
    resting_ledger: Ledger
    """What the device holds between steps."""
    host_ledger: Ledger
    """What the strategy keeps on the host when it keeps most there."""
    nvme_bytes: int
    """Swap files."""
    terms: tuple[Term, ...]
    """What the ledgers are made of, each piece with its formula and source."""
    activations_known: bool
    """Whether activations are in it; without a profile they are left out."""


def closed_form(
    setup: Setup,
    *,
    profile: ModelProfile | None = None,
    n_params: int | None = None,
    rank: int = 0,
) -> ClosedForm:
    """Add up what a rank holds, phase by phase.

    Args:
        setup: strategy, batch and buffers.
        profile: the model, traced in the setup's precision and with its recomputation; `None`
            leaves activations out and takes the model for many equal small parameters.
        n_params: trainable parameters; needed without a profile.
        rank: which rank.

    Raises:
        ValueError: neither profile nor count, or no such rank.
    """
    layout = layout_of(profile, n_params=n_params, n_ranks=setup.n_ranks, rank=rank)
    trace = None if profile is None else trace_at(profile, setup.micro_batch_size)
    buffer_bytes = 0 if profile is None else profile.buffer_bytes
    resting = resting_parts(setup, layout, buffer_bytes=buffer_bytes)
    peaks = {"init": _init(setup, layout, profile), **_steps(setup, layout, profile, trace)}
    stays = [part for part in resting if part.place == "device" and part.category != "gathered"]
    for phase in ("forward", "backward", "step"):
        peaks[phase] = [*stays, *peaks[phase]]
    host = [part for part in resting if part.place == "host"]
    if setup.offload_optimizer != "none":
        host.append(update_part(setup, _updated_on_host(setup, layout)))
    return ClosedForm(
        phase_ledgers={phase: ledger_at(peaks[phase], place="device") for phase in PHASES},
        resting_ledger=ledger_at(resting, place="device"),
        host_ledger=ledger_at(host, place="host"),
        nvme_bytes=nvme_bytes(setup, layout),
        terms=(
            *terms_of("resting", resting),
            *terms_of("step", (part for part in host if part not in resting)),
            *(term for phase in PHASES for term in terms_of(phase, peaks[phase])),
        ),
        activations_known=trace is not None,
    )


def _init(setup: Setup, layout: Layout, profile: ModelProfile | None) -> Sequence[Part]:
    if profile is not None:
        own = Part("params", profile.buffer_bytes, "the model's own buffers", "torch.nn")
        build_peak_bytes = profile.build_peak_bytes - profile.buffer_bytes
    else:
        own, build_peak_bytes = Part("params", 0, "", ""), 4 * layout.n_trainable
    moments = init_moments(setup, layout, build_peak_bytes=build_peak_bytes)
    return [*fullest(moments), own]


def _steps(
    setup: Setup, layout: Layout, profile: ModelProfile | None, trace: ActivationTrace | None
) -> dict[str, Sequence[Part]]:
    """Phase -> what is held at its peak beside what rests."""
    batch = Part("activations", 0 if trace is None else trace.batch_bytes, "the batch", SOURCE)
    step = [*fullest(step_moments(setup, layout)), batch]
    forward: Sequence[Part]
    if setup.stage < 3 or setup.engine == "torch":
        peak = NOTHING if trace is None else forward_peak_of(trace)
        forward = [*peak.parts(), *carried_parts(setup, layout)]
        if trace is None or profile is None:
            arrivals = tuple(without_trace(len(layout.trainable)))
        else:
            arrivals = arrivals_of(trace, profile)
        backward = fullest(backward_moments(setup, layout, arrivals, batch=batch))
        return {"forward": forward, "backward": backward, "step": step}
    if trace is None or profile is None:
        phased = list(guessed_moments(setup, layout))
    else:
        phased = list(sharded_moments(setup, layout, profile=profile, trace=trace))
    forward = fullest(parts for phase, parts in phased if phase == "forward")
    backward = fullest(parts for phase, parts in phased if phase == "backward")
    return {"forward": forward, "backward": backward, "step": step}


def _updated_on_host(setup: Setup, layout: Layout) -> Sequence[int]:
    """Elements of each tensor that the host updates by itself."""
    if setup.stage < 3:
        return [layout.partition_elements]
    return [max(layout.sub_groups(setup.sub_group_elements), default=0)]
