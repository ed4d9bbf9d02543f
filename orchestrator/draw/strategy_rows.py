"""Strategies as rows of a plot: what they are called there, and what became of each in words."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from orchestrator.compare.entry import Entry
from orchestrator.compare.ranking import Ranking, Row
from orchestrator.draw.style import GRID, SMALL_PT, shortened
from orchestrator.units import as_bytes

ACROSS_IN = 10.0
NAME_ROOM_IN = 2.4
N_LAST = 10
"""Letters of a long name that stay at its end, where strategies differ most."""
MANY_ROWS = 20
"""Beyond so many, rows are lower and the scale is written on top, too."""
MESSAGE_ROOM_IN = 4.0


def shown_names(
    ranking: Ranking, *, room_in: float = NAME_ROOM_IN, size_pt: float = SMALL_PT
) -> dict[str, str]:
    """What the strategies are called in a plot.

    Args:
        ranking: theirs.
        room_in: how wide a name may be, inches.
        size_pt: type size.

    Returns:
        Name -> the same, cut in its middle where it is wider. Those that would then look alike have
        their place among the rows, from 1, behind them.
    """
    cut = [
        shortened(
            " ".join(row.name.split()) or "-",
            room_in=room_in,
            size_pt=size_pt,
            n_last=N_LAST,
        )
        for row in ranking.rows
    ]
    return {
        row.name: f"{short} #{place}" if cut.count(short) > 1 else short
        for place, (row, short) in enumerate(zip(ranking.rows, cut, strict=True), start=1)
    }


def outcome_words(entry: Entry) -> str:
    """What became of a strategy that did not run to its end."""
    record = entry.record
    if record.outcome == "infeasible":
        if record.forecast_peak_bytes is None:
            return "does not fit"
        return f"does not fit: forecast {as_bytes(record.forecast_peak_bytes)}"
    message = " ".join((record.message or "").split())
    if record.outcome != "failed" or not message:
        return record.outcome
    return shortened(f"failed: {message}", room_in=MESSAGE_ROOM_IN, size_pt=SMALL_PT, bold=False)


def rows_in(n_rows: int, *, row_in: float = 0.32) -> float:
    """Height of so many rows, inches; lower ones where there are many."""
    return n_rows * (row_in if n_rows <= MANY_ROWS else 0.75 * row_in)


def label_rows(axes: Axes, rows: Sequence[Row], *, ranking: Ranking, raised: float = 0.0) -> None:
    """Write the strategies' names at the left, the first on top, the baseline in bold.

    Args:
        axes: one row is 1 high.
        rows: those that are shown.
        ranking: theirs.
        raised: how far above the middle of its row a name stands.
    """
    names = shown_names(ranking)
    places = [place - raised for place in range(len(rows))]
    axes.set_yticks(places, [names[row.name] for row in rows])
    for row, label in zip(rows, axes.get_yticklabels(), strict=True):
        if row.name == ranking.baseline:
            label.set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    if len(rows) > MANY_ROWS:
        axes.tick_params(axis="x", top=True, labeltop=True)


def draw_scale(axes: Axes) -> None:
    """Draw the lines that sizes and times are read against; the scale begins at 0."""
    axes.set_xlim(left=0)
    axes.xaxis.grid(visible=True, color=GRID, linewidth=0.8)


def left_out_words(n_left_out: int, *, why: str) -> str:
    """A sentence on the strategies that a plot lacks, to stand after others; empty without any."""
    if not n_left_out:
        return ""
    return f" {n_left_out} {'strategy' if n_left_out == 1 else 'strategies'} {why}: left out."
