"""The plot of a comparison's step times: a bar a strategy, where its slowest rank's steps go."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from orchestrator.compare.ranking import Ranking, Row
from orchestrator.draw.step_parts import draw_parts, part_patches, stacked
from orchestrator.draw.strategy_rows import (
    ACROSS_IN,
    draw_scale,
    label_rows,
    left_out_words,
    rows_in,
)
from orchestrator.draw.style import INK, NUMBERS, SMALL_PT, TEXT_PT, new_figure
from orchestrator.measure.run_record import StepTimes


def strategy_steps_figure(ranking: Ranking, *, name: str) -> Figure | None:
    """Draw where the steps of each strategy's slowest rank go.

    Args:
        ranking: the strategies.
        name: the comparison's.

    Returns:
        A bar for each strategy that ran to its end, in ms: the parts that are known and, up to the
        median step, the rest. `None` where none has measured a step.
    """
    timed = [(row, times) for row in ranking.rows if (times := _times(row)) is not None]
    if not timed:
        return None
    rows = [row for row, _ in timed]
    figure, axes = new_figure(
        title=f"Where a step of each strategy goes · {name}",
        subtitle=_subtitle(rows, ranking=ranking),
        across_in=ACROSS_IN,
        height_in=2.0 + rows_in(len(rows)),
    )
    shortest_s = min(times.median or 0.0 for _, times in timed)
    used: set[str] = set()
    for place, (_, times) in enumerate(timed):
        parts = stacked(times)
        end_s = draw_parts(axes, parts, place=place, height=0.62)
        is_shortest = times.median == shortest_s and len(rows) > 1
        _write_total(axes, place, times, end_s=end_s, is_shortest=is_shortest)
        used |= {part for part, _ in parts}
    label_rows(axes, rows, ranking=ranking)
    draw_scale(axes)
    axes.set_xlabel("ms a step", color=INK)
    axes.xaxis.set_major_formatter(StrMethodFormatter(NUMBERS))
    if used:
        figure.legend(
            handles=part_patches(used),
            loc="outside lower center",
            ncols=6,
            frameon=False,
            fontsize=TEXT_PT,
        )
    return figure


def _times(row: Row) -> StepTimes | None:
    slowest = row.entry.record.slowest if row.entry.is_ok else None
    return None if slowest is None else slowest.step_s


def _subtitle(rows: list[Row], *, ranking: Ranking) -> str:
    words = "Medians over the measured steps of the slowest rank."
    if len({row.entry.global_batch_size for row in rows}) > 1:
        words += " Steps are not of equally many samples."
    if any(row.name == ranking.baseline for row in rows):
        words += " Bold: the baseline."
    n_missing = len(ranking.rows) - len(rows)
    return words + left_out_words(n_missing, why="without a measured step")


def _write_total(
    axes: Axes, place: int, times: StepTimes, *, end_s: float, is_shortest: bool
) -> None:
    words = f"{(times.median or 0.0) * 1e3:,.1f} ms"
    axes.annotate(
        f"{words}, shortest" if is_shortest else words,
        (end_s * 1e3, place),
        xytext=(5, 0),
        textcoords="offset points",
        verticalalignment="center",
        fontsize=SMALL_PT,
        fontweight="bold" if is_shortest else "normal",
        color=INK,
    )
