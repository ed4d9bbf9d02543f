"""The heat map: a quantity by rank and step. A slow rank is a row of it, a slow step a column."""

from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from orchestrator.draw.rank_grid import BinnedGrid, RankGrid, binned
from orchestrator.draw.style import BLANK, INK, NUMBERS, SMALL_PT, TEXT_PT, new_figure
from orchestrator.units import MIB

MAX_COLUMNS = 400
MAX_RANK_LABELS = 16
COLOURS = "viridis"
MEDIANS_SHOWN = 2.0
"""Colours end at so many medians, so that one slow first step does not make all others alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What a heat map shows, and the unit people read it in."""

    label: str
    unit: str
    size: float
    """How much of what the grid holds is one of the unit."""


STEP_TIME = Quantity(label="step time", unit="ms", size=1e-3)
PEAK_MEMORY = Quantity(label="peak memory", unit="MiB", size=MIB)
SAMPLES_PER_S = Quantity(label="throughput", unit="samples/s", size=1)


def heat_map_figure(grid: RankGrid, *, name: str, quantity: Quantity = STEP_TIME) -> Figure | None:
    """Draw a quantity by rank and step.

    Args:
        grid: the quantity, in seconds, bytes or samples a second; not negative.
        name: the run's.
        quantity: what it is.

    Returns:
        A row a rank and at most 400 columns, each the median of its steps; what is unknown is
        grey. `None` where nothing is known.
    """
    bins = binned(grid, max_columns=MAX_COLUMNS)
    if bins is None:
        return None
    n_ranks, n_columns = bins.values.shape
    values = bins.values / quantity.size
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    top = min(high, MEDIANS_SHOWN * float(np.nanmedian(values)))
    if top <= low:
        # One value all over, or a median of 0: some width, for a scale to be drawn.
        top = max(high, low + (abs(low) or 1.0) * 0.01)
    figure, axes = new_figure(
        title=f"{quantity.label.capitalize()} by rank and step · {name}",
        subtitle=_subtitle(bins, quantity, most=high if high > top else None),
        across_in=10,
        height_in=2.4 + min(0.32 * n_ranks, 1.5 + 0.065 * n_ranks),
    )
    last_edge = bins.first_step + n_columns * bins.steps_per_column - 0.5
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colormaps[COLOURS].with_extremes(bad=BLANK),
        vmin=low,
        vmax=top,
        aspect="auto",
        interpolation="none",
        extent=(bins.first_step - 0.5, last_edge, n_ranks - 0.5, -0.5),
    )
    scale = figure.colorbar(
        image,
        ax=axes,
        extend="max" if high > top else "neither",
        pad=0.02,
        fraction=0.05,
        aspect=30,
    )
    scale.set_label(f"{quantity.label}, {quantity.unit}", color=INK, fontsize=TEXT_PT)
    scale.ax.yaxis.set_major_locator(MaxNLocator(5 if n_ranks > 4 else 3))
    scale.ax.yaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    scale.ax.tick_params(labelsize=SMALL_PT, labelcolor=INK)
    scale.outline.set_visible(False)
    _label_axes(axes, bins)
    if np.isnan(values).any():
        figure.legend(
            handles=[Patch(facecolor=BLANK, label="probe step, or not reported")],
            loc="outside lower left",
            frameon=False,
            fontsize=TEXT_PT,
        )
    return figure


def _subtitle(bins: BinnedGrid, quantity: Quantity, *, most: float | None) -> str:
    words = "A row is a rank, a column is a step."
    if bins.steps_per_column > 1:
        words = f"A row is a rank, a column is the median of {bins.steps_per_column} steps."
    if most is not None:
        words += f" Colours end at twice the median; the most is {most:,.1f} {quantity.unit}."
    return words


def _label_axes(axes: Axes, bins: BinnedGrid) -> None:
    n_ranks = len(bins.ranks)
    every = -(-n_ranks // MAX_RANK_LABELS)
    every = 1 << (every - 1).bit_length()
    places = range(0, n_ranks, every)
    axes.set_yticks(places, [f"rank {bins.ranks[place]}" for place in places])
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("optimizer step", color=INK)
    if n_ranks <= MAX_RANK_LABELS:
        axes.hlines(
            [place - 0.5 for place in range(1, n_ranks)], *axes.get_xlim(), color="white", lw=1.5
        )
