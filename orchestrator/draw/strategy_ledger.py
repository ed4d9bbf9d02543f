"""The plot of a comparison's memory: a bar a strategy, what filled its fullest rank by category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from orchestrator.compare.ranking import Ranking, Row
from orchestrator.draw.size_unit import SizeUnit, size_unit
from orchestrator.draw.strategy_rows import (
    ACROSS_IN,
    draw_scale,
    label_rows,
    outcome_words,
    rows_in,
)
from orchestrator.draw.style import (
    HATCH,
    INK,
    NUMBERS,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    category_fill,
    new_figure,
)
from orchestrator.measure.ledger import CATEGORIES, Ledger, completed
from orchestrator.measure.run_record import RankRow
from orchestrator.units import MIB, as_bytes

RAISED = 0.14
"""How far a bar is above the middle of its row, for what is kept elsewhere to have room."""
FAR = 3
"""What is beyond so many times the largest peak is told, not drawn: bars would be slivers."""
ASIDE: Mapping[str, dict[str, Any]] = {
    "host memory": {"facecolor": "#EDF3F8", "edgecolor": QUIET, "hatch": HATCH},
    "NVMe": {"facecolor": "#F7F1E6", "edgecolor": QUIET, "hatch": "....."},
}
"""Where bytes are that are kept off the device -> how their bar looks: pale and hatched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One strategy's."""

    row: Row
    parts: Ledger
    """Of the device; empty where there is no peak to show."""
    aside: Mapping[str, int]
    """Where -> bytes kept there; without those that keep nothing."""

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())


def strategy_ledger_figure(ranking: Ranking, *, name: str) -> Figure | None:
    """Draw what fills the fullest rank of each strategy at its peak.

    Args:
        ranking: the strategies.
        name: the comparison's.

    Returns:
        A stacked bar a strategy that adds up to the peak, in MiB or, from 10 GiB on, in GiB; a peak
        that was not traced is unattributed. Below a bar, thin and hatched, what is kept in host
        memory and on NVMe. A strategy that did not run to its end has an empty row that says so.
        `None` where no strategy has a peak.
    """
    bars = [_bar(row) for row in ranking.rows]
    if not any(bar.parts for bar in bars):
        return None
    offloads = any(bar.aside for bar in bars)
    top_bytes = max(bar.total_bytes for bar in bars) or MIB
    unit = size_unit([top_bytes])
    end_bytes = _end_bytes(bars, top_bytes=top_bytes, budget_bytes=ranking.budget_bytes)
    is_cut = any(n_bytes > end_bytes for bar in bars for n_bytes in bar.aside.values())
    figure, axes = new_figure(
        title=f"Memory of each strategy at its peak · {name}",
        subtitle=_subtitle(ranking, offloads=offloads, is_cut=is_cut),
        across_in=ACROSS_IN,
        height_in=2.1 + rows_in(len(bars), row_in=0.4 if offloads else 0.32),
    )
    for place, bar in enumerate(bars):
        middle = place - RAISED if offloads else place
        _draw_parts(axes, middle, bar, unit=unit)
        _draw_aside(axes, place, bar, unit=unit)
        _write_words(axes, middle, bar, unit=unit, ranking=ranking)
    handles = _legend_of(bars)
    if ranking.budget_bytes is not None:
        is_near = ranking.budget_bytes <= FAR * top_bytes
        handles.append(_draw_budget(axes, ranking.budget_bytes, unit=unit, is_near=is_near))
    label_rows(axes, ranking.rows, ranking=ranking, raised=RAISED if offloads else 0.0)
    draw_scale(axes)
    axes.set_xlim(right=1.01 * unit.of(end_bytes))
    axes.set_xlabel(unit.name, color=INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=TEXT_PT
    )
    return figure


def _bar(row: Row) -> _Bar:
    fullest = row.entry.record.fullest if row.entry.is_ok else None
    if fullest is None:
        return _Bar(row=row, parts={}, aside={})
    parts = completed(fullest.ledger or {}, measured_bytes=fullest.peak_bytes or 0)
    return _Bar(row=row, parts=parts, aside=_aside(fullest))


def _aside(rank: RankRow) -> dict[str, int]:
    amounts = zip(ASIDE, (rank.host_bytes, rank.nvme_bytes), strict=True)
    return {where: n_bytes for where, n_bytes in amounts if n_bytes}


def _end_bytes(bars: Sequence[_Bar], *, top_bytes: int, budget_bytes: int | None) -> int:
    """Where the scale ends: at what is largest, unless it is far above the largest peak."""
    aside = [n_bytes for bar in bars for n_bytes in bar.aside.values()]
    others = min(max(aside, default=0), FAR * top_bytes)
    is_near = budget_bytes is not None and budget_bytes <= FAR * top_bytes
    return max(top_bytes, others, budget_bytes or 0 if is_near else 0)


def _subtitle(ranking: Ranking, *, offloads: bool, is_cut: bool) -> str:
    words = "Tensors on the device of the fullest rank, at its peak."
    if offloads:
        words += " Hatched: what that rank keeps elsewhere."
    if is_cut:
        words += " What reaches the right edge goes on beyond it."
    if ranking.baseline is not None:
        words += " Bold: the baseline; 0.50x is half its peak."
    return words


def _draw_parts(axes: Axes, place: float, bar: _Bar, *, unit: SizeUnit) -> None:
    left_bytes = 0
    for category in CATEGORIES:
        n_bytes = bar.parts.get(category, 0)
        if n_bytes <= 0:
            continue
        axes.barh(
            place,
            unit.of(n_bytes),
            0.52,
            left=unit.of(left_bytes),
            **category_fill(category),
        )
        left_bytes += n_bytes


def _draw_aside(axes: Axes, place: int, bar: _Bar, *, unit: SizeUnit) -> None:
    for lower, (where, n_bytes) in enumerate(bar.aside.items()):
        axes.barh(
            place + 0.21 + 0.15 * lower, unit.of(n_bytes), 0.13, linewidth=0.5, **ASIDE[where]
        )


def _write_words(axes: Axes, place: float, bar: _Bar, *, unit: SizeUnit, ranking: Ranking) -> None:
    axes.annotate(
        _words(bar, unit=unit, ranking=ranking),
        (unit.of(bar.total_bytes), place),
        xytext=(5, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=SMALL_PT,
        fontstyle="normal" if bar.parts else "italic",
        color=INK if bar.parts else QUIET,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        zorder=4,
    )


def _words(bar: _Bar, *, unit: SizeUnit, ranking: Ranking) -> str:
    row = bar.row
    if not row.entry.is_ok:
        return outcome_words(row.entry)
    if not bar.parts:
        return "peak unknown"
    words = unit.words(bar.total_bytes)
    if row.peak_ratio is not None and row.name != ranking.baseline:
        words += f", {row.peak_ratio:.2f}x"
    if ranking.budget_bytes is not None and bar.total_bytes > ranking.budget_bytes:
        words += ", above the budget"
    return "; ".join([words, *(f"{where} {unit.words(n)}" for where, n in bar.aside.items())])


def _legend_of(bars: Sequence[_Bar]) -> list[Artist]:
    used = [name for name in CATEGORIES if any(bar.parts.get(name) for bar in bars)]
    patches = [Patch(label=name, **category_fill(name)) for name in used]
    kept = [where for where in ASIDE if any(where in bar.aside for bar in bars)]
    return [*patches, *(Patch(label=where, linewidth=0.5, **ASIDE[where]) for where in kept)]


def _draw_budget(axes: Axes, budget_bytes: int, *, unit: SizeUnit, is_near: bool) -> Line2D:
    """Draw the budget, if it is near; returns what a legend says of it."""
    if not is_near:
        return Line2D(
            [], [], linestyle="none", label=f"budget {as_bytes(budget_bytes)}, far beyond"
        )
    words = f"budget {unit.words(budget_bytes)}"
    line: Line2D = axes.axvline(
        unit.of(budget_bytes), color=INK, linestyle="--", linewidth=1.2, zorder=3, label=words
    )
    return line
