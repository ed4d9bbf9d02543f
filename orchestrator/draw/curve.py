"""A value a step as a curve of not too many points. Pure arithmetic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_POINTS = 600
"""Beyond so many steps a point stands for several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What is drawn of a value a step."""

    steps: Floats
    """From 1; of several, the middle one."""
    values: Floats
    """NaN where nothing is to be drawn."""
    steps_per_point: int
    n_steps: int

    @property
    def edges(self) -> Floats:
        """Where each point's steps begin, and where the last one's end."""
        edges = 0.5 + self.steps_per_point * np.arange(len(self.values) + 1, dtype=np.float64)
        edges[-1] = self.n_steps + 0.5
        return edges

    @property
    def top(self) -> float | None:
        """The largest value; `None` where there is none."""
        return None if np.isnan(self.values).all() else float(np.nanmax(self.values))

    @property
    def bottom(self) -> float | None:
        """The smallest value; `None` where there is none."""
        return None if np.isnan(self.values).all() else float(np.nanmin(self.values))


def curve_of(values: Sequence[float]) -> Curve:
    """Make a curve of losses: of several steps the median. What is not finite is not drawn."""
    return _binned(_finite(values), lambda block: np.nanmedian(block, axis=1))


def difference_curve(losses: Sequence[float], base: Sequence[float]) -> Curve | None:
    """Make a curve of absolute differences: of several steps the largest.

    Args:
        losses: a strategy's.
        base: the baseline's; only steps that both have count.

    Returns:
        Steps in which they are equal are left out, as a log scale has no zero; `None` where nothing
        is left.
    """
    apart = _apart(losses, base)
    apart[apart == 0] = np.nan
    if np.isnan(apart).all():
        return None
    return _binned(apart, lambda block: np.nanmax(block, axis=1))


def envelope_curve(losses: Sequence[float], base: Sequence[float]) -> Curve | None:
    """Make a curve of the largest absolute difference up to each step; `None` without any."""
    apart = np.nan_to_num(_apart(losses, base))
    grown = np.maximum.accumulate(apart) if apart.size else apart
    grown[grown == 0] = np.nan
    if np.isnan(grown).all():
        return None
    return _binned(grown, lambda block: np.nanmax(block, axis=1))


def _finite(values: Sequence[float]) -> Floats:
    told = np.array(values, dtype=np.float64)
    return np.where(np.isfinite(told), told, np.nan)


def _apart(losses: Sequence[float], base: Sequence[float]) -> Floats:
    n_common = min(len(losses), len(base))
    apart: Floats = np.abs(_finite(losses[:n_common]) - _finite(base[:n_common]))
    return apart


def _binned(values: Floats, of_block: Callable[[Floats], Floats]) -> Curve:
    """Put values into at most 600 points; a point of which nothing is known is NaN."""
    per_point = -(-len(values) // MAX_POINTS)
    n_points = -(-len(values) // per_point)
    padded = np.full(n_points * per_point, np.nan)
    padded[: len(values)] = values
    block = padded.reshape(n_points, per_point)
    known = ~np.isnan(block).all(axis=1)
    points = np.full(n_points, np.nan)
    points[known] = of_block(block[known])
    first = np.arange(n_points) * per_point + 1
    last = np.minimum(first + per_point - 1, len(values))
    return Curve(
        steps=(first + last) / 2,
        values=points,
        steps_per_point=per_point,
        n_steps=len(values),
    )
