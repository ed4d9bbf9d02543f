"""The saved view of a comparison: its strategies side by side, opened by a link.

Pure: it makes the tag and the link, `mlflow` writes it.
"""

from collections.abc import Iterable

from orchestrator.track.base import TrackedRun
from orchestrator.track.charts import Chart, chart, packed, section
from orchestrator.track.views import View, view_id

NAME = "Comparison"
_BARS = {
    "summary/peak_mib": "Peak memory of the fullest rank, MiB",
    "summary/samples_per_s": "All ranks together, samples/s",
    "summary/host_mib": "Offloaded to the host, MiB",
    "summary/mfu_ratio": "Share of what the devices could do at most (MFU)",
    "summary/final_loss": "Loss of the last step",
    "forecast/error_ratio": "Forecast peak against measured, as a ratio",
}
_LINES = {
    "train/loss": "Loss of every strategy: one line where they train the same",
    "throughput/samples_per_s": "All ranks together, samples/s, first round",
}


def comparison_view(metric_keys: Iterable[str], *, run_id: str) -> View:
    """A view of all strategies of a comparison.

    Args:
        metric_keys: what its strategies have.
        run_id: the comparison's own run.
    """
    keys = sorted(set(metric_keys))
    sections = [
        section("summary", "Strategies side by side", columns=2, height=360),
        section("steps", "Step by step", columns=2, height=360),
    ]
    charts: list[Chart] = [
        chart(kind, key, place, [key], title=title)
        for kind, place, titles in (("BAR", "summary", _BARS), ("LINE", "steps", _LINES))
        for key, title in titles.items()
        if key in keys
    ]
    state = {
        "compareRunSections": sections,
        "compareRunCharts": charts,
        "isAccordionReordered": True,
        "searchFilter": f"tags.mlflow.parentRunId = '{run_id}'",
        # Else the first ten are drawn.
        "runsVisibilityMode": "SHOWALL",
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
