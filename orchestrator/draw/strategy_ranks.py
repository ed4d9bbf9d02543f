"""The plot of peaks by strategy and rank: a row that is not of one colour is uneven."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from orchestrator.compare.ranking import Ranking, Row
from orchestrator.draw.heat_map import COLOURS, MAX_RANK_LABELS
from orchestrator.draw.size_unit import SizeUnit, size_unit
from orchestrator.draw.strategy_rows import ACROSS_IN, label_rows, left_out_words, rows_in
from orchestrator.draw.style import BLANK, INK, NUMBERS, QUIET, SMALL_PT, TEXT_PT, new_figure

MAX_WRITTEN_RANKS = 8
MAX_WRITTEN_ROWS = 12
"""Up to so many of both, values are written into the cells; else the ends of each row beside it."""


def strategy_ranks_figure(ranking: Ranking, *, name: str) -> Figure | None:
    """Draw the peak of each rank of each strategy.

    Args:
        ranking: the strategies.
        name: the comparison's.

    Returns:
        A row for each strategy that ran to its end, a column a rank; ranks that a strategy has not,
        or that told no peak, are grey. `None` where no peak is known.
    """
    peaks = {row.name: _peaks(row) for row in ranking.rows}
    rows = [row for row in ranking.rows if peaks[row.name]]
    if not rows:
        return None
    ranks = sorted({rank for row in rows for rank in peaks[row.name]})
    told = [[peaks[row.name].get(rank, np.nan) for rank in ranks] for row in rows]
    peak_bytes = np.array(told, dtype=np.float64)
    unit = size_unit([float(np.nanmax(peak_bytes))])
    is_written = len(ranks) <= MAX_WRITTEN_RANKS and len(rows) <= MAX_WRITTEN_ROWS
    figure, axes = new_figure(
        title=f"Peak memory by strategy and rank · {name}",
        subtitle=_subtitle(rows, ranking=ranking, is_written=is_written),
        across_in=min(ACROSS_IN, 6.5 + 0.5 * len(ranks)),
        height_in=max(2.6, 1.8 + rows_in(len(rows))),
    )
    _draw_cells(figure, axes, peak_bytes, unit=unit)
    if is_written:
        _write_values(axes, peak_bytes, unit=unit)
    else:
        _write_spreads(axes, peak_bytes, unit=unit)
    label_rows(axes, rows, ranking=ranking)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _label_ranks(axes, ranks)
    axes.hlines(
        [place - 0.5 for place in range(1, len(rows))], *axes.get_xlim(), color="white", lw=1.5
    )
    if np.isnan(peak_bytes).any():
        figure.legend(
            handles=[Patch(facecolor=BLANK, label="no such rank, or its peak is unknown")],
            loc="outside lower left",
            frameon=False,
            fontsize=TEXT_PT,
        )
    return figure


def _peaks(row: Row) -> dict[int, int]:
    """Rank -> bytes; empty where the strategy did not run to its end."""
    if not row.entry.is_ok:
        return {}
    told = ((rank.rank, rank.peak_bytes) for rank in row.entry.record.ranks)
    return {rank: peak_bytes for rank, peak_bytes in told if peak_bytes is not None}


def _subtitle(rows: Sequence[Row], *, ranking: Ranking, is_written: bool) -> str:
    words = "Tensors on the device at the peak."
    if not is_written:
        words += " Beside a row: its emptiest and its fullest rank."
    if any(row.name == ranking.baseline for row in rows):
        words += " Bold: the baseline."
    return words + left_out_words(len(ranking.rows) - len(rows), why="without a peak")


def _draw_cells(
    figure: Figure, axes: Axes, peak_bytes: NDArray[np.float64], *, unit: SizeUnit
) -> None:
    values = peak_bytes / unit.size_bytes
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    image = axes.imshow(
        np.ma.masked_invalid(values),
        cmap=colormaps[COLOURS].with_extremes(bad=BLANK),
        vmin=low,
        # One value all over: some width, for a scale to be drawn.
        vmax=high if high > low else low + (abs(low) or 1.0) * 0.01,
        aspect="auto",
        interpolation="none",
    )
    scale = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05, aspect=30)
    scale.set_label(f"peak memory, {unit.name}", color=INK, fontsize=TEXT_PT)
    scale.ax.yaxis.set_major_locator(MaxNLocator(6 if len(values) > 6 else 3))
    scale.ax.yaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    scale.ax.tick_params(labelsize=SMALL_PT, labelcolor=INK)
    scale.outline.set_visible(False)


def _write_values(axes: Axes, peak_bytes: NDArray[np.float64], *, unit: SizeUnit) -> None:
    (image,) = axes.images
    colours = np.asarray(image.cmap(image.norm(np.ma.masked_invalid(peak_bytes / unit.size_bytes))))
    for (row, column), n_bytes in np.ndenumerate(peak_bytes):
        if np.isnan(n_bytes):
            continue
        red, green, blue, _ = colours[row, column]
        is_light = 0.30 * red + 0.59 * green + 0.11 * blue > 0.5
        axes.text(
            column,
            row,
            unit.number(n_bytes),
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=SMALL_PT,
            color=INK if is_light else "white",
        )


def _write_spreads(axes: Axes, peak_bytes: NDArray[np.float64], *, unit: SizeUnit) -> None:
    for place, row in enumerate(peak_bytes):
        axes.annotate(
            f"{unit.number(np.nanmin(row))} to {unit.number(np.nanmax(row))}",
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="center",
            fontsize=SMALL_PT,
            color=QUIET,
        )


def _label_ranks(axes: Axes, ranks: Sequence[int]) -> None:
    every = -(-len(ranks) // MAX_RANK_LABELS)
    every = 1 << (every - 1).bit_length()
    places = range(0, len(ranks), every)
    axes.set_xticks(places, [str(ranks[place]) for place in places])
    axes.set_xlabel("rank", color=INK)
    axes.tick_params(axis="x", length=0)
    axes.spines[:].set_visible(False)
