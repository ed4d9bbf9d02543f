"""A quantity by rank and step, and the same in fewer columns. Pure arithmetic."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from orchestrator.measure.sample import RankSample


@dataclass(frozen=True, slots=True, kw_only=True)
class RankGrid:
    """One value for each rank and step.

    Raises:
        ValueError: the values are not a row a rank and a value a step, or steps do not ascend.
    """

    steps: Sequence[int]
    """Ascending; some may be absent."""
    ranks: Sequence[int]
    values: Sequence[Sequence[float | None]]
    """A row for each of the ranks, in it a value for each of the steps; `None` is unknown, or a
    probe step's."""

    def __post_init__(self) -> None:
        if any(later <= step for step, later in pairwise(self.steps)):
            raise ValueError("the steps of a grid must ascend")
        if len(self.values) != len(self.ranks):
            raise ValueError(f"{len(self.values)} rows for {len(self.ranks)} ranks")
        if any(len(row) != len(self.steps) for row in self.values):
            raise ValueError(f"every row must have {len(self.steps)} values, one a step")


@dataclass(frozen=True, slots=True, kw_only=True)
class BinnedGrid:
    """A grid in columns of equally many steps."""

    first_step: int
    steps_per_column: int
    ranks: Sequence[int]
    values: NDArray[np.float64]
    """A row a rank, a column a bin: the median of what is known; NaN where nothing is."""


def step_time_grid(samples: Iterable[RankSample]) -> RankGrid:
    """Lay out seconds a step by rank and step; probe steps are unknown.

    Args:
        samples: in the order they were told; of a repeated step the last one stays.
    """
    return sample_grid(samples, value=lambda sample: None if sample.probe else sample.step_s)


def sample_grid(
    samples: Iterable[RankSample], *, value: Callable[[RankSample], float | None]
) -> RankGrid:
    """Lay out a quantity by rank and step.

    Args:
        samples: in the order they were told; of a repeated step the last one stays.
        value: the quantity; `None` where it is unknown.
    """
    told = {(sample.rank, sample.step): value(sample) for sample in samples}
    ranks = sorted({rank for rank, _ in told})
    steps = sorted({step for _, step in told})
    values = [[told.get((rank, step)) for step in steps] for rank in ranks]
    return RankGrid(steps=steps, ranks=ranks, values=values)


def binned(grid: RankGrid, *, max_columns: int) -> BinnedGrid | None:
    """Put a grid into at most so many columns.

    Args:
        grid: the quantity.
        max_columns: at least 1.

    Returns:
        Bins of equally many steps, at least as many as usually lie between two that are there;
        `None` where nothing is known.

    Raises:
        ValueError: `max_columns` is below 1.
    """
    if max_columns < 1:
        raise ValueError(f"max_columns is {max_columns}; at least 1 is needed")
    values = np.array(grid.values, dtype=np.float64).reshape(len(grid.ranks), len(grid.steps))
    values = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(values).all():
        return None
    steps = np.array(grid.steps)
    first, n_steps = int(steps[0]), int(steps[-1] - steps[0]) + 1
    usual_gap = int(np.median(np.diff(steps))) if len(steps) > 1 else 1
    width = max(-(-n_steps // max_columns), usual_gap)
    n_columns = -(-n_steps // width)
    edges = np.searchsorted(steps, first + width * np.arange(n_columns + 1))
    columns = [_row_medians(values[:, start:stop]) for start, stop in pairwise(edges)]
    return BinnedGrid(
        first_step=first,
        steps_per_column=width,
        ranks=grid.ranks,
        values=np.stack(columns, axis=1),
    )


def _row_medians(block: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of each row's known values; NaN without a warning where a row has none."""
    if block.shape[1] == 0:
        return np.full(block.shape[0], np.nan)
    ascending = np.sort(block, axis=1)  # NaN come last
    n_known = np.sum(~np.isnan(block), axis=1, keepdims=True)
    low = np.take_along_axis(ascending, np.maximum(n_known - 1, 0) // 2, axis=1)
    high = np.take_along_axis(ascending, n_known // 2 * (n_known > 0), axis=1)
    medians: NDArray[np.float64] = ((low + high) / 2)[:, 0]
    return medians
