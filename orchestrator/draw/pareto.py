"""The plot of memory against throughput: a point a strategy, and the front none of them beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from orchestrator.compare.ranking import OBJECTIVES, Ranking, Row, Throughput
from orchestrator.draw.point_labels import PointLabel, write_point_labels
from orchestrator.draw.size_unit import SizeUnit, size_unit
from orchestrator.draw.strategy_rows import ACROSS_IN, left_out_words, shown_names
from orchestrator.draw.style import (
    CATEGORY_COLOURS,
    GRID,
    INK,
    NUMBERS,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    TINY_PT,
    new_figure,
    width_in,
)
from orchestrator.units import as_bytes

MAX_NAMED = 16
"""Beyond so many points they are numbered, and their names listed beside."""
LIST_PITCH_PT = 10.5
MARK_IN = 0.6
"""What a legend needs beside the words of a column."""
ROOM_RATIO = 0.12
"""What is left free around the points, for labels, in the width or height they take."""
FRONT = CATEGORY_COLOURS["params"]
POINT_PT, WINNER_PT = 6.0, 17.0
WINNER_MARKS = {
    "fastest": ("s", 11.0, CATEGORY_COLOURS["temporaries"]),
    "smallest": ("D", 12.5, CATEGORY_COLOURS["optimizer"]),
    "balanced": ("o", WINNER_PT, CATEGORY_COLOURS["activations"]),
}
"""Objective -> shape, size and colour of what is drawn around its winner; nested, where it is one
of several objectives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    row: Row
    number: int
    """Its place among all rows, from 1."""
    label: str
    peak_bytes: int
    throughput: Throughput
    wins: bool


def memory_throughput_figure(ranking: Ranking, *, name: str) -> Figure | None:
    """Draw peak memory against samples a second.

    Args:
        ranking: the strategies.
        name: the comparison's.

    Returns:
        A point for each strategy that ran to its end and has both. Up to 16 have their names
        beside them; more have numbers, and a list tells the names. `None` where none has both.
    """
    points = _points(ranking)
    if not points:
        return None
    is_listed = len(points) > MAX_NAMED
    unit = size_unit(point.peak_bytes for point in points)
    n_missing = len(ranking.rows) - len(points)
    figure, axes = new_figure(
        title=f"Peak memory and throughput · {name}",
        subtitle=(
            "Up and to the left is better. Bars: where the median lies with 95 % confidence."
            + left_out_words(n_missing, why="without both")
        ),
        across_in=ACROSS_IN,
        height_in=max(6.0, 2.2 + len(points) * LIST_PITCH_PT / 72) if is_listed else 6.0,
    )
    for point in points:
        _draw_point(axes, point, unit=unit)
    handles = _draw_front(axes, [point for point in points if point.row.pareto], unit=unit)
    if any(not point.row.pareto for point in points) and handles:
        handles.append(_mark(filled=False, label="not on the front"))
    handles += _draw_winners(axes, points, ranking=ranking, unit=unit)
    _set_limits(axes, points, unit=unit)
    if ranking.budget_bytes is not None:
        handles.append(_draw_budget(axes, ranking.budget_bytes, unit=unit))
    axes.set_xlabel(f"peak memory of the fullest rank, {unit.name}", color=INK)
    axes.set_ylabel("samples/s", color=INK)
    if is_listed:
        _write_list(axes, points)
    if handles:
        _draw_legend(figure, handles)
    labels = _labels(points, unit=unit, is_listed=is_listed)
    write_point_labels(figure, axes, labels, avoid=_lines(points, unit=unit))
    return figure


def _draw_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    widest_in = max(width_in(str(handle.get_label()), size_pt=TEXT_PT) for handle in handles)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=3 if 3 * (widest_in + MARK_IN) < ACROSS_IN else 2,
        frameon=False,
        fontsize=TEXT_PT,
    )


def _points(ranking: Ranking) -> list[_Point]:
    names = shown_names(ranking, room_in=1.9)
    winners = {winner.name for winner in ranking.winners.values() if winner is not None}
    points = []
    for number, row in enumerate(ranking.rows, start=1):
        peak_bytes, throughput = row.entry.peak_bytes, row.throughput
        if not row.entry.is_ok or peak_bytes is None or throughput is None:
            continue
        label = names[row.name] + (", baseline" if row.name == ranking.baseline else "")
        points.append(
            _Point(
                row=row,
                number=number,
                label=label,
                peak_bytes=peak_bytes,
                throughput=throughput,
                wins=row.name in winners,
            )
        )
    return points


def _draw_point(axes: Axes, point: _Point, *, unit: SizeUnit) -> None:
    x, told = unit.of(point.peak_bytes), point.throughput
    colour = FRONT if point.row.pareto else QUIET
    low, high = told.interval
    axes.vlines(x, low, high, color=colour, linewidth=0.8, alpha=0.6, zorder=2)
    axes.plot(
        x,
        told.samples_per_s,
        marker="o",
        markersize=POINT_PT,
        markerfacecolor=FRONT if point.row.pareto else "white",
        markeredgecolor=colour,
        zorder=3.5 if point.row.pareto else 3,
    )


def _draw_front(axes: Axes, front: Sequence[_Point], *, unit: SizeUnit) -> list[Artist]:
    """Connect the front; returns what a legend says of it."""
    if not front:
        return []
    ascending = sorted(front, key=lambda p: (p.peak_bytes, p.throughput.samples_per_s))
    # With so much memory no more is to be had, until the next one fits.
    axes.plot(
        [unit.of(point.peak_bytes) for point in ascending],
        [point.throughput.samples_per_s for point in ascending],
        drawstyle="steps-post",
        color=FRONT,
        linewidth=1.2,
        alpha=0.6,
        zorder=1.5,
    )
    return [_mark(filled=True, label="Pareto front: none is both smaller and faster")]


def _mark(*, filled: bool, label: str) -> Line2D:
    return Line2D(
        [],
        [],
        color=FRONT if filled else QUIET,
        linestyle="-" if filled else "none",
        marker="o",
        markersize=POINT_PT,
        markerfacecolor=FRONT if filled else "white",
        label=label,
    )


def _draw_winners(
    axes: Axes, points: Sequence[_Point], *, ranking: Ranking, unit: SizeUnit
) -> list[Artist]:
    """Draw a shape around each winner; returns what a legend says of them."""
    by_name = {point.row.name: point for point in points}
    handles: list[Artist] = []
    for objective in OBJECTIVES:
        winner = ranking.winners.get(objective)
        if winner is None or winner.name not in by_name:
            continue
        point, (shape, size_pt, colour) = by_name[winner.name], WINNER_MARKS[objective]
        look: dict[str, Any] = {
            "linestyle": "none",
            "marker": shape,
            "markerfacecolor": "none",
            "markeredgecolor": colour,
            "markeredgewidth": 1.6,
        }
        axes.plot(
            unit.of(point.peak_bytes),
            point.throughput.samples_per_s,
            markersize=size_pt,
            zorder=4,
            **look,
        )
        number = f"{point.number} " if len(points) > MAX_NAMED else ""
        label = f"{objective}: {number}{point.label}"
        handles.append(Line2D([], [], markersize=9, label=label, **look))
    return handles


def _set_limits(axes: Axes, points: Sequence[_Point], *, unit: SizeUnit) -> None:
    x = [unit.of(point.peak_bytes) for point in points]
    y = [value for p in points for value in (*p.throughput.interval, p.throughput.samples_per_s)]
    axes.set_xlim(*_with_room(x))
    axes.set_ylim(*_with_room(y))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8))
        axis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.grid(visible=True, color=GRID, linewidth=0.8)


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    # Points that are all but alike are not drawn as if they were far apart.
    room = max(ROOM_RATIO * (high - low), 0.03 * abs(high)) or 1.0
    # Neither is ever negative, and no scale says so.
    return max(low - room, -0.05 * (high + room)), high + room


def _draw_budget(axes: Axes, budget_bytes: int, *, unit: SizeUnit) -> Line2D:
    """Draw the budget, if it is near; returns what a legend says of it."""
    far = f"budget {as_bytes(budget_bytes)}, far to the"
    at, (low, high) = unit.of(budget_bytes), axes.get_xlim()
    if at > high + 0.5 * (high - low):
        return Line2D([], [], linestyle="none", label=f"{far} right")
    if at < low - 0.5 * (high - low):
        return Line2D([], [], linestyle="none", label=f"{far} left")
    words = f"budget {unit.words(budget_bytes)}"
    edge = 0.03 * (high - low)
    axes.set_xlim(min(low, at - edge), max(high, at + edge))
    line: Line2D = axes.axvline(at, color=INK, linestyle="--", linewidth=1.2, zorder=1, label=words)
    return line


def _write_list(axes: Axes, points: Sequence[_Point]) -> None:
    for place, point in enumerate(points):
        for x_pt, words, side in ((26, str(point.number), "right"), (31, point.label, "left")):
            axes.annotate(
                words,
                (1, 1),
                xycoords="axes fraction",
                xytext=(x_pt, -place * LIST_PITCH_PT),
                textcoords="offset points",
                horizontalalignment=side,
                verticalalignment="top",
                fontsize=SMALL_PT,
                fontweight="bold" if point.row.pareto else "normal",
                color=INK,
            )


def _labels(points: Sequence[_Point], *, unit: SizeUnit, is_listed: bool) -> list[PointLabel]:
    """Names or numbers, the front's first."""
    return [
        PointLabel(
            text=str(point.number) if is_listed else point.label,
            x=unit.of(point.peak_bytes),
            y=point.throughput.samples_per_s,
            mark_pt=WINNER_PT if point.wins else POINT_PT,
            size_pt=TINY_PT if is_listed else SMALL_PT,
            bold=point.row.pareto,
        )
        for point in sorted(points, key=lambda point: not point.row.pareto)
    ]


def _lines(points: Sequence[_Point], *, unit: SizeUnit) -> list[tuple[float, float]]:
    """Points along the error bars and the front's line."""
    along = []
    for point in points:
        low, high = point.throughput.interval
        along += [(unit.of(point.peak_bytes), float(y)) for y in np.linspace(low, high, 12)]
    front = sorted((p.peak_bytes, p.throughput.samples_per_s) for p in points if p.row.pareto)
    for (x, y), (next_x, next_y) in pairwise(front):
        along += [(unit.of(float(at)), y) for at in np.linspace(x, next_x, 20)]
        along += [(unit.of(next_x), float(at)) for at in np.linspace(y, next_y, 12)]
    return along
