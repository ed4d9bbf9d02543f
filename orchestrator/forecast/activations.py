"""A micro-batch's activations from a model's traces: exact at a traced size, affine elsewhere.

Pure arithmetic. At a fixed shape of samples every tensor is either as long as the micro-batch or
independent of it. A peak is the most of several such lines, which the line through two of its
points overstates between them and may understate beyond them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from orchestrator.forecast.profile import ActivationTrace, ModelProfile, Moment
from orchestrator.forecast.terms import Part

SOURCE = "activation trace of the bare model"


class Held(NamedTuple):
    """What a bare model holds at a point."""

    n_bytes: int
    temporary_bytes: int
    """The part of it that is no activation."""

    def parts(self) -> tuple[Part, ...]:
        """As pieces of memory."""
        return (
            Part("activations", self.n_bytes - self.temporary_bytes, "activations", SOURCE),
            Part("temporaries", self.temporary_bytes, "temporaries of operations", SOURCE),
        )


NOTHING = Held(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A gradient that arrives, and what is held until and when it does."""

    parameter: int
    """Index into the trainable parameters."""
    until: Held
    """The most since the arrival before, the gradient on its way counted."""
    then: Held
    """When it is there, beside it."""


@lru_cache(maxsize=64)
def trace_at(profile: ModelProfile, micro_batch_size: int) -> ActivationTrace:
    """What a micro-batch of a size takes.

    Args:
        profile: the traced model.
        micro_batch_size: samples, at least 1.

    Raises:
        ValueError: the profile has fewer than two traces, or they differ in more than bytes.
    """
    for trace in profile.traces:
        if trace.micro_batch_size == micro_batch_size:
            return trace
    if len(profile.traces) < 2:
        raise ValueError("two traces are needed to tell what another micro-batch takes")
    near = sorted(profile.traces, key=lambda t: abs(t.micro_batch_size - micro_batch_size))[:2]
    low, high = sorted(near, key=lambda t: t.micro_batch_size)
    if [(m.kind, m.subject) for m in low.moments] != [(m.kind, m.subject) for m in high.moments]:
        raise ValueError("the model does different things for different micro-batches")
    run = high.micro_batch_size - low.micro_batch_size

    def line(at_low: int, at_high: int) -> int:
        rise = (at_high - at_low) * (micro_batch_size - low.micro_batch_size)
        return max(0, at_low + round(rise / run))

    return ActivationTrace(
        micro_batch_size=micro_batch_size,
        batch_bytes=line(low.batch_bytes, high.batch_bytes),
        forward_peak_bytes=line(low.forward_peak_bytes, high.forward_peak_bytes),
        forward_peak_temporary_bytes=line(
            low.forward_peak_temporary_bytes, high.forward_peak_temporary_bytes
        ),
        forward_end_bytes=line(low.forward_end_bytes, high.forward_end_bytes),
        moments=tuple(
            replace(
                a,
                held_bytes=line(a.held_bytes, b.held_bytes),
                held_temporary_bytes=line(a.held_temporary_bytes, b.held_temporary_bytes),
                peak_bytes=line(a.peak_bytes, b.peak_bytes),
                peak_temporary_bytes=line(a.peak_temporary_bytes, b.peak_temporary_bytes),
            )
            for a, b in zip(low.moments, high.moments, strict=True)
        ),
        flops=line(low.flops, high.flops),
    )


@lru_cache(maxsize=64)
def arrivals_of(trace: ActivationTrace, profile: ModelProfile) -> tuple[Arrival, ...]:
    """The gradients in the order of backward."""
    number = trainable_numbers(profile)
    found: list[Arrival] = []
    until = NOTHING
    for moment in trace.moments:
        if not moment.backward:
            continue
        until = max(until, peak_of(moment))
        if moment.kind == "gradient":
            found.append(
                Arrival(parameter=number[moment.subject], until=until, then=held_of(moment))
            )
            until = NOTHING
    return tuple(found)


def trainable_numbers(profile: ModelProfile) -> dict[int, int]:
    """Number among all parameters -> number among the trainable ones."""
    trained = (index for index, p in enumerate(profile.parameters) if p.trainable)
    return {index: number for number, index in enumerate(trained)}


def without_trace(n_parameters: int) -> Iterator[Arrival]:
    """Gradients that arrive last parameter first, with nothing known beside them."""
    for parameter in reversed(range(n_parameters)):
        yield Arrival(parameter=parameter, until=NOTHING, then=NOTHING)


def forward_peak_of(trace: ActivationTrace) -> Held:
    """The most during forward."""
    return Held(trace.forward_peak_bytes, trace.forward_peak_temporary_bytes)


def held_of(moment: Moment) -> Held:
    """What is held at a moment."""
    return Held(moment.held_bytes, moment.held_temporary_bytes)


def peak_of(moment: Moment) -> Held:
    """The most since the moment before."""
    return Held(moment.peak_bytes, moment.peak_temporary_bytes)
