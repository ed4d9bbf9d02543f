"""The StepTime: a first estimate of how long one optimizer step takes, and what it assumes.

Pure arithmetic, from what a rank computes, sends and moves, and from Rates that are defaults until
something was measured. It ranks strategies; it is no promise: neither a roofline of every operation
nor the input of data, swapping to NVMe or the host's launching of kernels is in it.
"""

from collections import defaultdict
from dataclasses import dataclass

from orchestrator.forecast.rates import Rates

BACKWARD_RATIO = 2 / 3
"""Of all operations; 3/4 when forward is recomputed in it, which hides a little more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Calls of one collective in one phase of an optimizer step, every micro-batch counted."""

    name: str
    phase: str
    """`forward`, `backward` or `step`."""
    n_calls: int
    wire_bytes: int
    """What a rank sends in all of them (`wire.ring_wire_bytes`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one rank does in one optimizer step."""

    flops_per_micro_batch: int
    """Forward and backward as computed, recomputation included."""
    accumulation_steps: int
    update_elements: int
    """Weights that this rank's optimizer updates."""
    update_bytes_per_element: float
    """What an update reads and writes: with AdamW in fp32, 16 and 12, and 2 for a bf16 weight."""
    update_on_host: bool
    """By DeepSpeed's CPU Adam, beside a GPU."""
    to_host_bytes: int
    to_device_bytes: int
    traffic: tuple[Traffic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """An estimate of one optimizer step."""

    compute_s: float
    communication_s: float
    """All of it, hidden or not."""
    exposed_communication_s: float
    """What compute does not hide."""
    optimizer_s: float
    transfer_s: float
    total_s: float
    """Compute, exposed communication, optimizer and transfers, one after the other."""
    assumptions: tuple[str, ...]


def step_time(work: Work, *, rates: Rates, stage: int, overlap: bool) -> StepTime:
    """Estimate one optimizer step.

    Args:
        work: what a rank does.
        rates: how fast.
        stage: ZeRO stage, 0 to 3.
        overlap: DeepSpeed's `overlap_comm` on a GPU; a CPU has no second stream to send from.

    Returns:
        Stages 0 and 1 send after the last backward, so nothing is hidden; stage 2 hides in
        backward what it sends there; stage 3 hides in forward too. The step's own collectives are
        always exposed, and so are transfers to and from the host.

    Raises:
        ValueError: the stage is none, or there is no micro-batch.

    Source:
        deepspeed 0.19.8: runtime/zero/stage_1_and_2.py:2290, stage3.py:340 and
        parameter_offload.py:195, where streams beside the computing one depend on `overlap_comm`.
    """
    if not 0 <= stage <= 3 or work.accumulation_steps < 1:
        raise ValueError(f"stage {stage}, {work.accumulation_steps} micro-batches make no step")
    compute_s = work.flops_per_micro_batch * work.accumulation_steps / rates.flops_per_s
    backward_s = BACKWARD_RATIO * compute_s
    computing_s = {"forward": compute_s - backward_s, "backward": backward_s}
    hiding = {2: ("backward",), 3: ("forward", "backward")}.get(stage, ()) if overlap else ()
    communication_s, n_calls = defaultdict[str, float](float), defaultdict[str, int](int)
    for one in work.traffic:
        seconds = rates.alpha_s * one.n_calls + one.wire_bytes / rates.beta_bytes_per_s
        communication_s[one.phase] += seconds
        n_calls[one.phase] += one.n_calls
    exposed_communication_s = sum(
        exposed_s(
            seconds,
            compute_s=computing_s[phase],
            n_pieces=max(1, n_calls[phase] // work.accumulation_steps),
        )
        if phase in hiding
        else seconds
        for phase, seconds in communication_s.items()
    )
    optimizer_s = (
        work.update_elements / rates.cpu_adam_elements_per_s
        if work.update_on_host
        else work.update_elements * work.update_bytes_per_element / rates.memory_bytes_per_s
    )
    transfer_s = (work.to_host_bytes + work.to_device_bytes) / rates.host_link_bytes_per_s
    return StepTime(
        compute_s=compute_s,
        communication_s=sum(communication_s.values()),
        exposed_communication_s=exposed_communication_s,
        optimizer_s=optimizer_s,
        transfer_s=transfer_s,
        total_s=compute_s + exposed_communication_s + optimizer_s + transfer_s,
        assumptions=_assumptions(work, rates, hiding),
    )


def exposed_s(communication_s: float, *, compute_s: float, n_pieces: int) -> float:
    """What compute cannot hide of communication that comes in equal pieces.

    Args:
        communication_s: all of it.
        compute_s: of the same phase.
        n_pieces: calls a micro-batch, at least 1. One of them has nothing to hide behind: the
            first gather comes before any layer, the last bucket is full after every layer.

    Returns:
        At least one piece, and all that compute beside the others does not cover.
    """
    share = (n_pieces - 1) / n_pieces
    return max(communication_s / n_pieces, communication_s - compute_s * share)


def _assumptions(work: Work, rates: Rates, hiding: tuple[str, ...]) -> tuple[str, ...]:
    """Every rate that the estimate rests on, and what is taken to overlap."""
    of = rates.sources
    said = [f"compute at {rates.flops_per_s / 1e12:.3g} TFLOP/s: {of['flops_per_s']}"]
    if work.traffic:
        said += [
            f"{rates.alpha_s * 1e6:.3g} us a collective: {of['alpha_s']}",
            f"{rates.beta_bytes_per_s / 1e9:.3g} GB/s sent: {of['beta_bytes_per_s']}",
            f"sent beside {' and '.join(hiding)}, of which backward is {BACKWARD_RATIO:.0%}"
            if hiding
            else "nothing is sent while computing",
        ]
    if work.update_elements and work.update_on_host:
        rate = rates.cpu_adam_elements_per_s
        said.append(f"CPU Adam at {rate / 1e9:.3g}e9 weights/s: {of['cpu_adam_elements_per_s']}")
    elif work.update_elements:
        rate = rates.memory_bytes_per_s
        said.append(f"the update at {rate / 1e9:.4g} GB/s: {of['memory_bytes_per_s']}")
    if work.to_host_bytes or work.to_device_bytes:
        rate = rates.host_link_bytes_per_s
        said.append(
            f"to and from the host at {rate / 1e9:.3g} GB/s, one after the other and beside "
            f"nothing: {of['host_link_bytes_per_s']}"
        )
    return tuple(said)
