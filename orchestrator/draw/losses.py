"""The plot of a comparison's losses, and how far apart they are from those of the baseline."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    StrMethodFormatter,
)

from orchestrator.compare.ranking import Ranking, Row, Sameness
from orchestrator.draw.curve import Curve, envelope_curve
from orchestrator.draw.loss_curves import PLAIN, LossCurve, loss_curves
from orchestrator.draw.strategy_rows import shown_names
from orchestrator.draw.style import (
    GRID,
    INK,
    NUMBERS,
    draw_legend_beside,
    new_figure,
    new_panels,
    write_over,
)

ACROSS_IN = 10.5
SHADES = (("#CFCFCF", None), ("#E4E4E4", "////"), ("#F2F2F2", "...."))
"""How envelopes look, the highest of them last."""
FAR = 3
"""Losses beyond so many times the baseline's largest are told and not drawn."""
MAX_EQUAL_LETTERS = 330
"""So many letters of names of strategies that are equal; the others are counted."""
FLOOR = 1e-18
"""Below the smallest difference of two losses that are not equal."""


def losses_figure(
    ranking: Ranking, *, name: str, controls: Mapping[str, Sequence[float]]
) -> Figure | None:
    """Draw the loss curves, and below them their differences to the baseline's.

    Args:
        ranking: the strategies.
        name: the comparison's.
        controls: precision -> losses of the baseline from first weights that were changed by one
            unit in the last place: as far as rounding alone takes this training.

    Returns:
        Two panels; one where no strategy differs from a baseline. Strategies that are equal to the
        last bit have no difference to draw, and are named. `None` where there are no losses.
    """
    told = [row for row in ranking.rows if any(map(math.isfinite, row.entry.record.losses))]
    if not told:
        return None
    base = next((row for row in told if row.name == ranking.baseline), None)
    names = shown_names(ranking, room_in=2.0)
    drawn = loss_curves(told, base=base, names=names)
    equal = [row.name for row in told if row is not base and row.loss.sameness is Sameness.BITWISE]
    equal_words = _equal_words([names[other] for other in equal])
    end = _end(drawn, base)
    differ = [one for one in drawn if one.difference is not None]
    title = f"Losses of each strategy · {name}"
    subtitle = _subtitle(drawn, end=end)
    if not differ or base is None:
        figure, upper = new_figure(
            title=title,
            subtitle=f"{subtitle} {equal_words}".strip(),
            across_in=ACROSS_IN,
            height_in=4.6,
        )
        _draw_losses(upper, drawn, end=end)
        bottom = upper
    else:
        figure, (upper, bottom) = new_panels(
            title=title, subtitle=subtitle, across_in=ACROSS_IN, height_in=7.6, shares=(1, 1)
        )
        _draw_losses(upper, drawn, end=end)
        upper.tick_params(labelbottom=False)
        _draw_differences(bottom, differ, base=base, controls=controls)
        words = "Absolute difference to the baseline's loss of the same step."
        write_over(bottom, f"{words} {equal_words}".strip(), across_in=ACROSS_IN - 1.5)
    _label_steps(bottom, drawn)
    draw_legend_beside(upper, _legend_of(drawn))
    return figure


def _equal_words(names: Sequence[str]) -> str:
    if not names:
        return ""
    shown: list[str] = []
    for name in names:
        if sum(map(len, shown)) + len(name) > MAX_EQUAL_LETTERS:
            break
        shown.append(name)
    words = f"Equal to the last bit: {', '.join(shown)}"
    n_more = len(names) - len(shown)
    return f"{words} and {n_more} more." if n_more else f"{words}."


def _end(drawn: Sequence[LossCurve], base: Row | None) -> float | None:
    """Where the scale of losses ends, if some go on beyond it."""
    tops = {one.row.name: one.losses.top for one in drawn if one.losses.top is not None}
    if not tops:
        return None
    usual = float(np.median(list(tops.values())))
    if base is not None:
        usual = tops.get(base.name, usual)
    return FAR * usual if 0 < FAR * usual < max(tops.values()) else None


def _subtitle(drawn: Sequence[LossCurve], *, end: float | None) -> str:
    words = "One global loss an optimizer step; equal ones lie on each other."
    per_point = max(one.losses.steps_per_point for one in drawn)
    if per_point > 1:
        words += f" A point is {per_point} steps: the median of losses, the largest difference."
    if end is not None:
        most = max(one.losses.top or 0.0 for one in drawn)
        words += f" Losses that leave the panel go up to {most:.3g}."
    return words


def _draw_losses(axes: Axes, drawn: Sequence[LossCurve], *, end: float | None) -> None:
    for one in drawn:
        _draw_curve(axes, one, one.losses)
    if end is not None:
        axes.set_ylim(top=end)
        lows = [one.losses.bottom for one in drawn if one.losses.bottom is not None]
        axes.set_ylim(bottom=min(*lows, 0.0))
    axes.set_ylabel("loss", color=INK)
    axes.yaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _draw_curve(axes: Axes, one: LossCurve, curve: Curve) -> None:
    axes.plot(
        curve.steps,
        curve.values,
        color=one.colour,
        linestyle=one.dashes,
        linewidth=one.width,
        alpha=1.0 if one.label else 0.6,
        # A value between two that are missing would not be seen.
        marker="o" if len(curve.steps) <= 40 else None,
        markersize=1.4 * one.width + 0.8,
        zorder=2.5 if one.label else 2,
    )


def _draw_differences(
    axes: Axes, differ: Sequence[LossCurve], *, base: Row, controls: Mapping[str, Sequence[float]]
) -> None:
    envelopes = {
        precision: envelope_curve(losses, base.entry.record.losses)
        for precision, losses in controls.items()
    }
    known = {precision: curve for precision, curve in envelopes.items() if curve is not None}
    curves = [one.difference for one in differ if one.difference is not None]
    everything = [*curves, *known.values()]
    low = max(FLOOR, min(curve.bottom or FLOOR for curve in everything)) / 2
    high = 2 * max(curve.top or FLOOR for curve in everything)
    by_height = sorted(known.items(), key=lambda item: item[1].top or 0.0)
    shaded = list(zip(by_height, SHADES, strict=False))
    handles: list[Artist] = []
    for (precision, curve), (shade, hatch) in reversed(shaded):
        axes.stairs(
            curve.values,
            curve.edges,
            baseline=low,
            fill=True,
            facecolor=shade,
            edgecolor="white",
            hatch=hatch,
            linewidth=0,
            zorder=1.5,
        )
        axes.stairs(curve.values, curve.edges, baseline=None, edgecolor=INK, zorder=2.3)
        handles.append(
            Patch(
                facecolor=shade,
                edgecolor="white",
                hatch=hatch,
                label=f"what rounding alone does\nin {precision}, the most so far",
            )
        )
    for one in differ:
        if one.difference is not None:
            _draw_curve(axes, one, one.difference)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(
        LogLocator(numticks=8) if high > 100 * low else LogLocator(subs=(1, 2, 5), numticks=8)
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_ylabel("difference", color=INK)
    if handles:
        draw_legend_beside(axes, handles)


def _label_steps(axes: Axes, drawn: Sequence[LossCurve]) -> None:
    last = max(len(one.row.entry.record.losses) for one in drawn)
    # Half a step at both ends; of many, what a line needs.
    beyond = max(0.5, 0.01 * last)
    axes.set_xlim(1 - beyond, last + beyond)
    axes.xaxis.set_major_locator(
        FixedLocator([1]) if last == 1 else MaxNLocator(10, integer=True, steps=[1, 2, 5, 10])
    )
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("optimizer step", color=INK)


def _legend_of(drawn: Sequence[LossCurve]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=one.colour, linestyle=one.dashes, linewidth=one.width, label=one.label)
        for one in drawn
        if one.label is not None
    ]
    others = [
        one for one in drawn if one.label is None and one.row.loss.sameness != Sameness.BITWISE
    ]
    if others:
        words = "the other" if len(others) == 1 else f"the other {len(others)}"
        handles.append(Line2D([], [], color=PLAIN, linewidth=0.8, label=words))
    return handles
