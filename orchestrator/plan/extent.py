"""How much of a plan is trained, and what is looked at meanwhile. Pure.

A launch trains all of it. A comparison trains it once whole, and again in part: to measure its
speed in further rounds, or to see how far rounding alone takes its losses.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Of one run of a plan."""

    n_steps: int | None = None
    """Optimizer steps after which it ends, though the learning rate follows the whole schedule;
    `None`: all of the plan's."""
    closely: bool = True
    """Memory and collectives are traced in the first steps, and the evaluation set is evaluated."""
    weights_off_by: float | None = None
    """By how much of its own size each first weight is moved, up or down; `None`: not at all."""
    off_seed: int = 0
    """Which go up and which down."""


WHOLE = Extent()
"""All of a plan, closely looked at."""
