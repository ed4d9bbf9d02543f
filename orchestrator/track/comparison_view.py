"""The saved view of a comparison: its strategies side by side, opened by a link.

Pure: it makes the tag and the link, `mlflow` writes it.
"""

from collections.abc import Iterable, Mapping

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.track.base import TrackedRun
from orchestrator.track.charts import (
    Chart,
    bars,
    chart,
    differences,
    flat_list,
    packed,
    scatter,
    section,
)
from orchestrator.track.views import View, view_id

NAME = "Comparison"
COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77",
    "#CC6677", "#882255", "#AA4499", "#0077BB", "#EE7733", "#555555",
)  # fmt: skip
"""What strategies are drawn in, in their order; the page's own choice repeats itself among twelve.

Source:
    Tol, Colour Schemes (SRON/EPS/TN/09-002, 2021): muted, then three of vibrant.
"""
_PEAK, _SPEED = "summary/peak_mib", "summary/samples_per_s"
_FORECAST = "forecast/peak_mib"
_ANSWERS = {_PEAK: "Peak memory of the fullest rank, MiB", _SPEED: "All ranks together, samples/s"}
_FURTHER = {
    "summary/host_mib": "Offloaded to the host, MiB",
    "summary/mfu_ratio": "Share of what the devices could do (MFU)",
}
_PARTS = ("step", "forward", "backward", "optimizer", "communication", "data")
_LINES = {"train/loss": "Loss", "throughput/samples_per_s": "Samples/s"}


def comparison_view(metric_keys: Iterable[str], *, run_id: str) -> View:
    """A view of all strategies of a comparison.

    Args:
        metric_keys: what its strategies have.
        run_id: the comparison's own run.
    """
    keys = sorted(set(metric_keys))
    sections = [
        section("answer", "Strategies side by side", columns=2, height=400),
        section("ledger", "What fills the fullest rank's peak", columns=4, height=300),
        section("parts", "Where a step of the slowest rank goes", columns=3, height=320),
        section("lines", "Step by step", columns=2, height=400),
        section("settings", "What each strategy is", columns=1, height=300),
    ]
    ledger = {f"summary/peak_{category}_mib": f"{category}, MiB" for category in CATEGORIES}
    parts = {f"summary/{part}_ms": f"{part}, ms" for part in _PARTS}
    charts = [
        *_bars(keys, "answer", _ANSWERS),
        *_against(keys),
        *_bars(keys, "answer", _FURTHER),
        *_bars(keys, "ledger", ledger),
        *_bars(keys, "parts", parts),
        *(
            chart("LINE", key, "lines", [key], title=title)
            for key, title in _LINES.items()
            if key in keys
        ),
        differences("settings", "settings", title="Parameters that differ"),
    ]
    state = {
        "compareRunSections": sections,
        "compareRunCharts": charts,
        "isAccordionReordered": True,
        # A strategy's attempts that were given up are killed, and stand for nothing.
        "searchFilter": (f"tags.mlflow.parentRunId = '{run_id}' and attributes.status != 'KILLED'"),
        **flat_list(newest_first=False),
        # Else the first ten are drawn.
        "runsHiddenMode": "SHOW_ALL",
        "runListHidden": False,
    }
    tag_value = packed(state, keys)
    return View(name=NAME, id=view_id(NAME, run_id=run_id), tag_value=tag_value)


def comparison_link(base_url: str, run: TrackedRun) -> str:
    """The address that opens a comparison's view; to be used as it is."""
    return (
        f"{base_url.rstrip('/')}/#/experiments/{run.experiment_id}/runs"
        f"?viewStateShareKey={view_id(NAME, run_id=run.run_id)}"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def missing_colours(colours: Mapping[str, str | None]) -> dict[str, str]:
    """Colours for those that have none, so that few share one.

    Args:
        colours: run -> its colour, in the order of the strategies.
    """
    n_uses = dict.fromkeys(COLOURS, 0)
    for taken in colours.values():
        if taken in n_uses:
            n_uses[taken] += 1
    found = {}
    for run, taken in colours.items():
        if taken is None:
            # The first of those that are used least.
            found[run] = min(COLOURS, key=lambda colour: n_uses[colour])
            n_uses[found[run]] += 1
    return found


def _bars(keys: Iterable[str], place: str, titles: Mapping[str, str]) -> list[Chart]:
    return [bars(key, place, key, title=title) for key, title in titles.items() if key in keys]


def _against(keys: Iterable[str]) -> list[Chart]:
    """Memory against speed, and against its forecast."""
    charts = []
    if {_PEAK, _SPEED} <= set(keys):
        charts.append(scatter("against", "answer", x=_PEAK, y=_SPEED))
    if {_PEAK, _FORECAST} <= set(keys):
        charts.append(chart("BAR", "forecast", "answer", [_FORECAST, _PEAK], title="Forecast"))
    return charts
