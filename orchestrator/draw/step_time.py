"""The plot of step times: a bar a rank, where its steps go by part."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from orchestrator.draw.step_parts import draw_parts, part_patches, stacked
from orchestrator.draw.style import (
    GRID,
    HATCH,
    INK,
    NUMBERS,
    SMALL_PT,
    TEXT_PT,
    new_figure,
)
from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.units import as_duration

MAX_BARS = 16
"""Beyond so many ranks the slowest are shown."""
RAISED = 0.08
"""How far a bar is above the middle of its row, for communication to have room."""
COMMUNICATION: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": INK,
    "linewidth": 0.6,
    "hatch": HATCH,
}
"""How its patch looks: unlike the parts, which it overlaps."""


def step_time_figure(ranks: Sequence[RankRow], *, name: str) -> Figure | None:
    """Draw where the steps of each rank go.

    Args:
        ranks: the rows of a `RunRecord`.
        name: the run's.

    Returns:
        A bar a rank, in ms: the parts that are known and, up to the median step, the rest. Beyond
        its end is the checkpoint, which a step has only when something is saved; where one is
        longer than the longest step, words tell it. Below it is communication, which is measured in
        one profiled step and overlaps the parts. Beyond 16 ranks the 16 slowest, the slowest on
        top. `None` where no rank has a median.
    """
    timed = [row for row in ranks if row.step_s.median is not None]
    if not timed:
        return None
    shown = timed
    if len(ranks) > MAX_BARS:
        shown = sorted(timed, key=lambda row: row.step_s.median or 0, reverse=True)[:MAX_BARS]
    slowest = max(shown, key=lambda row: row.step_s.median or 0)
    longest_s = slowest.step_s.median or 0.0
    saves_fit = all((row.step_s.checkpoint or 0) <= longest_s for row in shown)
    figure, axes = new_figure(
        title=f"Where a step of each rank goes · {name}",
        subtitle=_subtitle(len(shown), n_ranks=len(ranks)),
        across_in=9,
        height_in=1.9 + 0.42 * len(shown),
    )
    used: set[str] = set()
    for place, row in enumerate(shown):
        parts = stacked(row.step_s)
        if saves_fit and row.step_s.checkpoint:
            parts.append(("checkpoint", row.step_s.checkpoint))
        end_s = draw_parts(axes, parts, place=place - RAISED, height=0.5)
        is_slowest = row is slowest and len(ranks) > 1
        _write_total(axes, place, row.step_s, end_s=end_s, is_slowest=is_slowest)
        used |= {part for part, _ in parts}
    if any(row.step_s.communication for row in shown):
        used.add("communication")
        _draw_communication(axes, [row.step_s.communication for row in shown])
    _label_axes(axes, shown)
    _draw_legend(figure, used)
    return figure


def _subtitle(n_shown: int, *, n_ranks: int) -> str:
    words = "Medians over the measured steps."
    if n_ranks > MAX_BARS:
        words += f" The {n_shown} slowest of {n_ranks} ranks."
    elif n_shown < n_ranks:
        words += f" {n_shown} of {n_ranks} ranks; the others have not measured a step."
    return words


def _draw_communication(axes: Axes, seconds: Sequence[float | None]) -> None:
    for place, amount_s in enumerate(seconds):
        if amount_s:
            axes.barh(place + 0.27, amount_s * 1e3, 0.14, **COMMUNICATION)


def _write_total(
    axes: Axes, place: int, times: StepTimes, *, end_s: float, is_slowest: bool
) -> None:
    words = f"{(times.median or 0.0) * 1e3:,.1f} ms"
    if is_slowest:
        words += ", slowest"
    if times.checkpoint:
        words += f"; +{as_duration(times.checkpoint)} when saving"
    axes.annotate(
        words,
        (end_s * 1e3, place - RAISED),
        xytext=(5, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=SMALL_PT,
        fontweight="bold" if is_slowest else "normal",
        color=INK,
    )


def _label_axes(axes: Axes, shown: Sequence[RankRow]) -> None:
    places = [place - RAISED for place in range(len(shown))]
    axes.set_yticks(places, [f"rank {row.rank}" for row in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("ms a step", color=INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _draw_legend(figure: Figure, used: set[str]) -> None:
    patches = part_patches(used)
    if "communication" in used:
        words = "communication: overlaps the others, from one profiled step"
        patches.append(Patch(label=words, **COMMUNICATION))
    figure.legend(
        handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=TEXT_PT
    )
