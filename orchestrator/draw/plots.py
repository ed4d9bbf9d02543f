"""The plots of a run, as the files that a tracking store keeps: name -> PNG and SVG bytes.

The door of this room: matplotlib is imported when a run is drawn, which takes half a second.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.measure.points import rank_label
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import MemoryTimeline

if TYPE_CHECKING:
    from orchestrator.draw.rank_grid import RankGrid


def draw_run(
    record: RunRecord,
    *,
    timelines: Mapping[int, MemoryTimeline],
    step_times: "RankGrid | None",
    budget_bytes: int | None,
) -> dict[str, bytes]:
    """Draw one run.

    Args:
        record: what it did cost.
        timelines: rank -> the memory probe's; that of the fullest rank which has one is drawn.
        step_times: seconds a step by rank and step (`rank_grid.step_time_grid`); `None` where
            they were not kept.
        budget_bytes: what a device may hold; `None` where no budget was given.

    Returns:
        `plots/ledger.png`, `plots/ledger.svg` and so on: ledger, timeline_rank_00, step_time and
        heat_map. A plot without data is absent. The same run gives the same bytes.
        One thread at a time: matplotlib's settings are the process's.
    """
    import matplotlib

    from orchestrator.draw.figure_files import figure_files
    from orchestrator.draw.heat_map import heat_map_figure
    from orchestrator.draw.ledger import ledger_figure
    from orchestrator.draw.step_time import step_time_figure
    from orchestrator.draw.style import SETTINGS
    from orchestrator.draw.timeline import timeline_figure

    with matplotlib.rc_context(SETTINGS):
        figures = {
            "ledger": ledger_figure(record.ranks, name=record.name, budget_bytes=budget_bytes)
        }
        timeline = _fullest(record, timelines)
        if timeline is not None:
            label = rank_label(timeline.rank, world_size=record.circumstances.n_ranks)
            figures[f"timeline_{label}"] = timeline_figure(timeline, name=record.name)
        figures["step_time"] = step_time_figure(record.ranks, name=record.name)
        if step_times is not None:
            figures["heat_map"] = heat_map_figure(step_times, name=record.name)
        files: dict[str, bytes] = {}
        for plot, figure in figures.items():
            if figure is not None:
                files |= figure_files(figure, plot=plot)
        return files


def _fullest(record: RunRecord, timelines: Mapping[int, MemoryTimeline]) -> MemoryTimeline | None:
    """The timeline of the rank with the largest peak of those that have one."""
    peaks = {row.rank: row.peak_bytes or 0 for row in record.ranks}
    rank = max(sorted(timelines), key=lambda rank: peaks.get(rank, 0), default=None)
    return None if rank is None else timelines[rank]
