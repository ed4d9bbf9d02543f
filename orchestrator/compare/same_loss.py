"""Whether a strategy computed the same training as the baseline: its losses, step by step.

Another order of additions changes the last bits of a number, and training blows such differences up
from step to step. How far, a control run tells: the baseline once more, from first weights that are
changed by one unit in the last place. What is further apart than that was not rounding. Pure
arithmetic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.compare.comparable import losses_differ_by_nature
from orchestrator.compare.entry import Entry
from orchestrator.compare.ranking import LossVerdict, Sameness

ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of rounding to a precision: half of the distance of 1 to the next number.

Source:
    IEEE 754-2019, table 3.5 (binary32 and binary16: p = 24 and 11 digits); bfloat16 has p = 8.
"""
CONTROL_FACTOR = 10.0
"""How many times further apart than the control rounding may take a strategy: it rounds otherwise
in every operation of every step, the control once."""
CONTROL_LEAD = 2
"""Steps by which it may do so earlier than in the control."""
FLOOR_ROUNDOFFS = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
"""How far apart, in roundings of the loss, two means of the same samples may always be. In fp32
the additions round too; the coarser ones add up in fp32 and round the sum."""
EARLY_ROUNDOFFS, EARLY_GROWTH = 64.0, 2.0
"""Without a control: how far apart the losses may be at first, in roundings, and how that grows
with each step. Measured on a ResNet with AdamW in fp32: a factor of 2.1 a step over 13 steps."""
EARLY_END_RATIO = 0.01
"""Share of the loss beyond which that guess says nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How far rounding may take two runs apart."""

    by_step: tuple[float, ...]
    """Absolute difference of two losses, of each step that is judged."""
    has_control: bool


def same_loss(
    entry: Entry, baseline: Entry, *, controls: Mapping[str, Sequence[float]]
) -> LossVerdict:
    """Judge the losses of a strategy.

    Args:
        entry: the strategy.
        baseline: what it is held against.
        controls: precision -> losses of the baseline, trained again from first weights that are
            changed by one unit in the last place of that precision.
    """
    mine, theirs = entry.record.losses, baseline.record.losses
    apart = tuple(_distance(one, other) for one, other in zip(mine, theirs, strict=False))
    if not apart:
        without = dict.fromkeys(one.name for one in (entry, baseline) if not one.record.losses)
        return _verdict(Sameness.UNKNOWN, apart, f"no losses of {' and '.join(without)}")
    nature = losses_differ_by_nature(entry, baseline)
    if nature is not None:
        return _verdict(Sameness.NOT_COMPARABLE, apart, nature)
    if not any(apart):
        cut = _length(entry, baseline)
        told = "; ".join([*cut, "equal to the last bit in those"]) if cut else ""
        return _verdict(Sameness.ROUNDING if cut else Sameness.BITWISE, apart, told)
    precision = max((_precision(entry), _precision(baseline)), key=lambda name: ROUNDOFF[name])
    allowed = _allowance(theirs[: len(apart)], controls.get(precision, ()), precision=precision)
    return _judged(entry, baseline, apart=apart, allowed=allowed, precision=precision)


def furthest_apart(
    losses: Sequence[float], controls: Sequence[Sequence[float]]
) -> tuple[float, ...]:
    """Make one control of several: in each step, the loss that is furthest from the baseline's.

    Rounding turns the sign of a gradient near 0 or it does not, and AdamW makes a whole step of
    that. Of twelve controls of a small convolutional network (AdamW, lr 0.01) four stayed where
    they were while other micro-batches went apart; three taken together did not.

    Args:
        losses: the baseline's.
        controls: of the baseline trained again, each from first weights changed otherwise.
    """
    steps = range(min(len(losses), max(map(len, controls), default=0)))
    return tuple(
        max(
            (control[n] for control in controls if n < len(control)),
            key=lambda loss: _distance(loss, losses[n]),
        )
        for n in steps
    )


def _judged(
    entry: Entry,
    baseline: Entry,
    *,
    apart: tuple[float, ...],
    allowed: Allowance,
    precision: str,
) -> LossVerdict:
    limits = allowed.by_step
    beyond = next((n for n, limit in enumerate(limits) if apart[n] and not apart[n] <= limit), None)
    notes = [*_length(entry, baseline), *_extent(allowed, n_steps=len(apart))]
    if beyond is not None:
        told = f"{apart[beyond]:.2g} apart at step {beyond + 1}, rounding explains "
        reason = "; ".join((f"{told}{limits[beyond]:.2g}", *_skips(entry, baseline), *notes))
        return _verdict(Sameness.DIFFERENT, apart, reason)
    if not limits:
        reason = f"no control run in {precision}, which is too coarse to judge without one"
        return _verdict(Sameness.UNKNOWN, apart, reason)
    return _verdict(Sameness.ROUNDING, apart, "; ".join(notes))


def _allowance(losses: Sequence[float], control: Sequence[float], *, precision: str) -> Allowance:
    """How far rounding may take a run from the baseline, in as many steps as that is known.

    Args:
        losses: the baseline's, of the steps that both runs have.
        control: of the baseline trained again; empty where it was not.
        precision: the coarser of the two runs'.
    """
    if not control:
        return Allowance(by_step=_early(losses, precision=precision), has_control=False)
    known = [_distance(one, other) for one, other in zip(losses, control, strict=False)]
    rounding = FLOOR_ROUNDOFFS[precision] * ROUNDOFF[precision]
    by_step = tuple(
        CONTROL_FACTOR * max(known[: n + CONTROL_LEAD + 1]) + rounding * _size(losses[n])
        for n in range(len(known))
    )
    return Allowance(by_step=by_step, has_control=True)


def _early(losses: Sequence[float], *, precision: str) -> tuple[float, ...]:
    """A guess that grows by itself, up to where it says nothing any more."""
    ratios = (EARLY_ROUNDOFFS * ROUNDOFF[precision] * EARLY_GROWTH**n for n in range(1, 64))
    telling = [ratio for ratio in ratios if ratio <= EARLY_END_RATIO]
    return tuple(ratio * _size(loss) for ratio, loss in zip(telling, losses, strict=False))


def _length(entry: Entry, baseline: Entry) -> list[str]:
    mine, theirs = entry.record.steps, baseline.record.steps
    if mine < theirs:
        return [f"has {mine} of the baseline's {theirs} steps"]
    return [f"the baseline has {theirs} of its {mine} steps"] if theirs < mine else []


def _extent(allowed: Allowance, *, n_steps: int) -> list[str]:
    n_judged = len(allowed.by_step)
    if not allowed.has_control:
        return [f"judged by the first {n_judged} steps; no control run"]
    return [f"over the first {n_judged} steps"] if n_judged < n_steps else []


def _skips(entry: Entry, baseline: Entry) -> list[str]:
    """What explains a difference best where fp16 left out steps."""
    mine, theirs = entry.record.skipped_steps or 0, baseline.record.skipped_steps or 0
    return [f"it skipped {mine} steps, the baseline {theirs}"] if mine != theirs else []


def _verdict(sameness: Sameness, apart: tuple[float, ...], reason: str) -> LossVerdict:
    largest = max(apart, default=None)
    return LossVerdict(
        sameness=sameness,
        max_difference=largest,
        at_step=None if largest is None else apart.index(largest) + 1,
        reason=reason,
    )


def _distance(one: float, other: float) -> float:
    """How far apart two losses are; one that is no number is equal to another that is none."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    distance = abs(one - other)
    return math.inf if math.isnan(distance) else distance


def _size(loss: float) -> float:
    return abs(loss) if math.isfinite(loss) else 0.0


def _precision(entry: Entry) -> str:
    return str(entry.setting("training.precision") or "fp32")
