"""The plot of forecasts: what was foretold of each strategy's peak, and what it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter

from orchestrator.compare.ranking import Ranking, Row
from orchestrator.draw.size_unit import SizeUnit, size_unit
from orchestrator.draw.strategy_rows import (
    ACROSS_IN,
    draw_scale,
    label_rows,
    left_out_words,
    rows_in,
)
from orchestrator.draw.style import (
    CATEGORY_COLOURS,
    INK,
    NUMBERS,
    QUIET,
    SMALL_PT,
    TEXT_PT,
    new_figure,
)
from orchestrator.measure.run_record import RunRecord

MEASURED: dict[str, Any] = {
    "marker": "o",
    "markersize": 7,
    "color": CATEGORY_COLOURS["params"],
    "linestyle": "none",
}
FORECAST: dict[str, Any] = {
    "marker": "D",
    "markersize": 11,
    "markerfacecolor": "none",
    "markeredgecolor": CATEGORY_COLOURS["temporaries"],
    "markeredgewidth": 1.5,
    "linestyle": "none",
}
"""Larger and hollow: both are seen where they coincide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    row: Row
    forecast_bytes: float
    measured_bytes: float
    error_ratio: float | None
    """Forecast less measured, over the latter; `None` where nothing was held."""


def forecast_error_figure(ranking: Ranking, *, name: str) -> Figure | None:
    """Draw forecast and measured peak of each strategy.

    Args:
        ranking: the strategies.
        name: the comparison's.

    Returns:
        A row for each strategy that ran to its end and has both: two marks, the line between them
        and the error in percent. `None` where none has both.
    """
    pairs = [pair for row in ranking.rows if (pair := _pair(row)) is not None]
    if not pairs:
        return None
    rows = [pair.row for pair in pairs]
    unit = size_unit(max(pair.forecast_bytes, pair.measured_bytes) for pair in pairs)
    figure, axes = new_figure(
        title=f"Forecast and measured peak · {name}",
        subtitle=_subtitle(rows, ranking=ranking),
        across_in=ACROSS_IN,
        height_in=2.0 + rows_in(len(rows)),
    )
    for place, pair in enumerate(pairs):
        _draw_pair(axes, place, pair, unit=unit)
    label_rows(axes, rows, ranking=ranking)
    draw_scale(axes)
    furthest = max(max(pair.forecast_bytes, pair.measured_bytes) for pair in pairs)
    axes.set_xlim(right=1.02 * unit.of(furthest) or 1.0)
    axes.set_xlabel(f"peak memory, {unit.name}", color=INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    handles: list[Artist] = [
        Line2D([], [], label="measured", **MEASURED),
        Line2D([], [], label="forecast", **{**FORECAST, "markersize": 9}),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=TEXT_PT
    )
    return figure


def _pair(row: Row) -> _Pair | None:
    record = row.entry.record
    forecast_bytes, peak_bytes = record.forecast_peak_bytes, record.peak_bytes
    if not row.entry.is_ok or forecast_bytes is None or peak_bytes is None:
        return None
    return _Pair(
        row=row,
        forecast_bytes=forecast_bytes,
        measured_bytes=_measured_bytes(record, forecast_bytes, peak_bytes),
        error_ratio=_error_ratio(record, forecast_bytes, peak_bytes),
    )


def _error_ratio(record: RunRecord, forecast_bytes: int, peak_bytes: int) -> float | None:
    if record.forecast_error_ratio is not None:
        return record.forecast_error_ratio
    return (forecast_bytes - peak_bytes) / peak_bytes if peak_bytes else None


def _measured_bytes(record: RunRecord, forecast_bytes: int, peak_bytes: int) -> float:
    """The peak of the rank that the forecast is of, which need not be the fullest."""
    ratio = record.forecast_error_ratio
    return peak_bytes if ratio is None or ratio <= -1 else forecast_bytes / (1 + ratio)


def _subtitle(rows: Sequence[Row], *, ranking: Ranking) -> str:
    words = "Error: forecast less measured, in percent of what was measured."
    if any(row.name == ranking.baseline for row in rows):
        words += " Bold: the baseline."
    n_missing = len(ranking.rows) - len(rows)
    return words + left_out_words(n_missing, why="without forecast or peak")


def _draw_pair(axes: Axes, place: int, pair: _Pair, *, unit: SizeUnit) -> None:
    forecast, measured = unit.of(pair.forecast_bytes), unit.of(pair.measured_bytes)
    axes.hlines(place, *sorted((forecast, measured)), color=QUIET, linewidth=2)
    axes.plot(measured, place, zorder=3, clip_on=False, **MEASURED)
    axes.plot(forecast, place, zorder=4, clip_on=False, **FORECAST)
    axes.annotate(
        _error_words(pair.error_ratio),
        (max(forecast, measured), place),
        xytext=(11, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=SMALL_PT,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        zorder=2,
    )


def _error_words(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    percent = round(100 * ratio, 2 if abs(ratio) < 0.01 else 1)
    return f"{percent:+,} %" if percent else "0 %"
