"""The plot of ledgers: a bar a rank, what filled it at its peak by category, and its host bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from orchestrator.draw.style import (
    GRID,
    INK,
    NUMBERS,
    QUIET,
    SMALL_PT,
    TINY_PT,
    category_fill,
    draw_legend_beside,
    new_figure,
)
from orchestrator.measure.ledger import CATEGORIES, Ledger, completed
from orchestrator.measure.run_record import RankRow
from orchestrator.units import MIB, as_mib

MAX_BARS = 16
"""Beyond so many ranks some are picked."""
FEW_BARS = 8
"""Beyond so many bars their totals are written small and without a unit."""
BUDGET_SCALE = 3
"""A budget beyond so many times the largest bar is told and not drawn: bars would be slivers."""
HEADROOM = 1.16
"""Height of the axes in largest bars: two lines are written on top of it."""
PALER = 0.55
"""How much white is in the colours of what is on the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    row: RankRow
    x: float
    width: float
    parts: Mapping[str, int]
    """Category -> bytes."""
    on_host: bool

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())


def ledger_figure(
    ranks: Sequence[RankRow], *, name: str, budget_bytes: int | None = None
) -> Figure | None:
    """Draw what fills each rank's memory at its peak.

    Args:
        ranks: the rows of a `RunRecord`.
        name: the run's.
        budget_bytes: what a device may hold; `None` where no budget was given.

    Returns:
        A stacked bar a rank that adds up to the rank's peak, in MiB; beside it, lighter, what the
        strategy kept on the host, where it kept something there. A peak that was not traced is
        unattributed. Beyond 16 ranks: 16 from the fullest to the emptiest, evenly spaced between
        them in order of their peaks. `None` where nothing was traced.
    """
    if not any(row.ledger for row in ranks):
        return None
    shown = _shown([row for row in ranks if _device_parts(row)] if len(ranks) > MAX_BARS else ranks)
    bars = _bars(shown)
    offloads = any(bar.on_host for bar in bars)
    figure, axes = new_figure(
        title=f"Memory of each rank at its peak · {name}",
        subtitle=_subtitle(len(shown), n_ranks=len(ranks), offloads=offloads),
        across_in=max(7.5, 2.6 + (0.85 if offloads else 0.62) * len(shown)),
        height_in=5,
    )
    fullest = max(shown, key=lambda row: sum(_device_parts(row).values()))
    for bar in bars:
        _draw_bar(axes, bar)
        is_fullest = len(ranks) > 1 and not bar.on_host and bar.row is fullest
        _write_total(axes, bar, many=len(bars) > FEW_BARS, is_fullest=is_fullest)
    top_bytes = max(bar.total_bytes for bar in bars) or MIB
    handles = _legend_of(bars)
    if budget_bytes is not None:
        is_near = budget_bytes <= BUDGET_SCALE * top_bytes
        handles.insert(0, _draw_budget(axes, budget_bytes, is_near=is_near))
        top_bytes = max(top_bytes, budget_bytes if is_near else 0)
    axes.set_ylim(0, HEADROOM * top_bytes / MIB)
    _label_axes(axes, shown)
    draw_legend_beside(axes, handles)
    return figure


def _shown(ranks: Sequence[RankRow]) -> list[RankRow]:
    if len(ranks) <= MAX_BARS:
        return list(ranks)
    by_peak = sorted(ranks, key=lambda row: sum(_device_parts(row).values()), reverse=True)
    last = len(by_peak) - 1
    return [by_peak[round(i * last / (MAX_BARS - 1))] for i in range(MAX_BARS)]


def _subtitle(n_shown: int, *, n_ranks: int, offloads: bool) -> str:
    words = "Tensors on the device at the peak, and the phase it came in."
    if offloads:
        words += " Paler: what is kept in host memory."
    if n_shown < MAX_BARS < n_ranks:
        words += f" {n_shown} of {n_ranks} ranks; the others' peaks are unknown."
    elif n_shown < n_ranks:
        words += f" {n_shown} of {n_ranks} ranks, evenly spaced from the fullest to the emptiest."
    return words


def _bars(shown: Sequence[RankRow]) -> list[_Bar]:
    offloads = any(row.host_bytes for row in shown)
    width = 0.38 if offloads else 0.66
    bars = []
    for place, row in enumerate(shown):
        aside = 0.22 if row.host_bytes else 0.0
        if parts := _device_parts(row):
            bars.append(_Bar(row=row, x=place - aside, width=width, parts=parts, on_host=False))
        if row.host_bytes:
            parts = completed(row.host_ledger or {}, measured_bytes=row.host_bytes)
            bars.append(_Bar(row=row, x=place + aside, width=width, parts=parts, on_host=True))
    return bars


def _device_parts(row: RankRow) -> Ledger:
    """The peak by category; empty where it is unknown."""
    if row.ledger is None and row.peak_bytes is None:
        return {}
    return completed(row.ledger or {}, measured_bytes=row.peak_bytes or 0)


def _draw_bar(axes: Axes, bar: _Bar) -> None:
    below_mib = 0.0
    for category in CATEGORIES:
        height_mib = bar.parts.get(category, 0) / MIB
        if height_mib <= 0:
            continue
        axes.bar(
            bar.x,
            height_mib,
            bar.width,
            bottom=below_mib,
            **category_fill(category, white=PALER if bar.on_host else 0.0),
        )
        below_mib += height_mib


def _write_total(axes: Axes, bar: _Bar, *, many: bool, is_fullest: bool) -> None:
    total_mib = bar.total_bytes / MIB
    words = as_mib(bar.total_bytes)
    if bar.on_host and not many:
        words = f"on the host\n{words}"
    if many:
        words = f"{total_mib:,.1f}" if total_mib < 1000 else f"{total_mib:,.0f}"
    axes.annotate(
        f"fullest\n{words}" if is_fullest else words,
        (bar.x, total_mib),
        xytext=(0, 3),
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="bottom",
        fontsize=TINY_PT if many else SMALL_PT,
        fontweight="bold" if is_fullest else "normal",
        color=QUIET if bar.on_host else INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        zorder=4,
    )


def _draw_budget(axes: Axes, budget_bytes: int, *, is_near: bool) -> Line2D:
    """Draw the budget, if it is near; returns what a legend says of it."""
    if not is_near:
        words = f"budget {as_mib(budget_bytes)},\nfar above"
        return Line2D([], [], linestyle="none", label=words)
    line: Line2D = axes.axhline(
        budget_bytes / MIB,
        color=INK,
        linestyle="--",
        linewidth=1.2,
        zorder=3,
        label=f"budget {as_mib(budget_bytes)}",
    )
    return line


def _label_axes(axes: Axes, shown: Sequence[RankRow]) -> None:
    labels = [f"rank {row.rank}\n{row.peak_phase or '-'}" for row in shown]
    axes.set_xticks(range(len(shown)), labels)
    margin = 0.6 if len(shown) > 1 else 1.2
    axes.set_xlim(-margin, len(shown) - 1 + margin)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("MiB", color=INK)
    axes.yaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)


def _legend_of(bars: Sequence[_Bar]) -> list[Artist]:
    used = [name for name in CATEGORIES if any(bar.parts.get(name) for bar in bars)]
    return [Patch(label=name, **category_fill(name)) for name in reversed(used)]
