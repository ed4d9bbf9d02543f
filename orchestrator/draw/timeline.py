"""The plot of a timeline: what one rank's device held through one step, by category."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from orchestrator.draw.style import (
    BLANK,
    GRID,
    INK,
    NUMBERS,
    PHASE_TINTS,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    category_fill,
    draw_legend_beside,
    new_figure,
    width_in,
)
from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.sample import PHASES, MemoryTimeline
from orchestrator.units import MIB, as_mib

WIDTH_IN = 10.0
HEADROOM = 1.3
"""Height of the axes in peaks: the names of phases stand above the peak's value."""
AXES_IN = 7.4
"""Width of the axes at least, once scale and legend have theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Band:
    """A stretch of one phase."""

    phase: str
    from_ms: float
    to_ms: float


def timeline_figure(timeline: MemoryTimeline, *, name: str) -> Figure | None:
    """Draw what a rank's device held through the step in which every allocation was traced.

    Args:
        timeline: the rank's; ascending in time.
        name: the run's.

    Returns:
        Stacked areas in MiB over ms. Each moment holds until the next, the last for as long as the
        others do on average. A name stands over every stretch of a phase that is wide enough; a
        phase without any is in the legend. `None` where there is no moment.
    """
    if not timeline.at_s:
        return None
    edges_ms = _edges_ms(timeline.at_s)
    figure, axes = new_figure(
        title=f"Memory of rank {timeline.rank} through step {timeline.step} · {name}",
        subtitle=(
            "Tensors on the device. Every allocation of this step was traced, which stretches its"
            " times."
        ),
        across_in=WIDTH_IN,
        height_in=5,
    )
    total_bytes = [sum(moment) for moment in zip(*timeline.ledger.values(), strict=True)]
    used = [name for name in CATEGORIES if any(timeline.ledger.get(name, ()))]
    _draw_areas(axes, timeline, used, edges_ms)
    axes.set_xlim(edges_ms[0], edges_ms[-1])
    axes.set_ylim(0, HEADROOM * (max(total_bytes, default=0) or MIB) / MIB)
    bands = _bands(timeline.phase, edges_ms)
    named = _draw_bands(axes, bands, whole_ms=edges_ms[-1] - edges_ms[0])
    if any(total_bytes):
        _mark_peak(axes, timeline, total_bytes, edges_ms)
    axes.set_xlabel("ms from the beginning of the step", color=INK)
    axes.set_ylabel("MiB", color=INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.yaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    axes.yaxis.grid(visible=True, color=GRID, linewidth=0.8)
    unnamed = [p for p in PHASES if p not in named and any(band.phase == p for band in bands)]
    patches = [Patch(label=category, **category_fill(category)) for category in reversed(used)]
    patches += [
        Patch(facecolor=PHASE_TINTS[phase], edgecolor=QUIET, linewidth=0.4, label=f"in {phase}")
        for phase in unnamed
    ]
    draw_legend_beside(axes, patches)
    return figure


def _edges_ms(at_s: Sequence[float]) -> list[float]:
    """Where each moment begins, and where the last one ends."""
    gap_s = (at_s[-1] - at_s[0]) / (len(at_s) - 1) if len(at_s) > 1 else 0.0
    return [at * 1e3 for at in (*at_s, at_s[-1] + (gap_s or 1e-3))]


def _draw_areas(
    axes: Axes, timeline: MemoryTimeline, used: Sequence[str], edges_ms: Sequence[float]
) -> None:
    layers = [[n_bytes / MIB for n_bytes in timeline.ledger[category]] for category in used]
    below_mib = [0.0] * len(timeline.at_s)
    for category, layer in zip(used, layers, strict=True):
        top_mib = [low + high for low, high in zip(below_mib, layer, strict=True)]
        axes.stairs(
            top_mib,
            edges_ms,
            baseline=below_mib,
            fill=True,
            # An edge around every moment would hide the thin ones.
            **{**category_fill(category), "linewidth": 0},
            zorder=2,
        )
        below_mib = top_mib


def _bands(phases: Sequence[str], edges_ms: Sequence[float]) -> list[_Band]:
    changes = [i for i in range(len(phases)) if i == 0 or phases[i] != phases[i - 1]]
    return [
        _Band(phase=phases[start], from_ms=edges_ms[start], to_ms=edges_ms[stop])
        for start, stop in zip(changes, [*changes[1:], len(phases)], strict=True)
    ]


def _draw_bands(axes: Axes, bands: Sequence[_Band], *, whole_ms: float) -> set[str]:
    """Shade the phases, with names where they fit; says which phases have one."""
    named = set()
    for band in bands:
        axes.axvspan(
            band.from_ms,
            band.to_ms,
            facecolor=PHASE_TINTS.get(band.phase, BLANK),
            edgecolor="white",
            zorder=0,
        )
        room_in = (band.to_ms - band.from_ms) / whole_ms * AXES_IN
        if width_in(band.phase, size_pt=SMALL_PT) + 0.05 > room_in:
            continue
        named.add(band.phase)
        axes.text(
            (band.from_ms + band.to_ms) / 2,
            0.98,
            band.phase,
            transform=axes.get_xaxis_transform(),
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=SMALL_PT,
            color=INK,
        )
    return named


def _mark_peak(
    axes: Axes, timeline: MemoryTimeline, total_bytes: Sequence[int], edges_ms: Sequence[float]
) -> None:
    at = max(range(len(total_bytes)), key=lambda moment: total_bytes[moment])
    peak_mib = total_bytes[at] / MIB
    share = (edges_ms[at] - edges_ms[0]) / (edges_ms[-1] - edges_ms[0])
    axes.plot(edges_ms[at], peak_mib, marker=CARETDOWN, color=INK, markersize=7, zorder=4)
    axes.annotate(
        f"peak {as_mib(total_bytes[at])}, in {timeline.phase[at]}",
        (edges_ms[at], peak_mib),
        xytext=(0, 8),
        textcoords="offset points",
        horizontalalignment="left" if share < 0.2 else "right" if share > 0.8 else "center",
        verticalalignment="bottom",
        fontsize=TEXT_PT,
        fontweight="bold",
        color=INK,
        zorder=4,
    )
