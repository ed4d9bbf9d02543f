"""Saved views of MLflow's page: charts chosen and laid out beforehand, opened by a link.

A view is a tag of the experiment, `mlflow.sharedViewState.<id>`, that holds the state of the page's
charts. Pure: it makes the tags and the links, `mlflow` writes them.

Source: mlflow 3.17.2, the page's own bundle (server/js/build); what is needed of it was found by
writing views and opening them in a browser, and `tests/track/test_views_in_a_browser.py` does so
again.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.track.base import TrackedRun
from orchestrator.track.charts import MAX_TAG_VALUE, Chart, chart, flat_list, packed, section

TAG_PREFIX = "mlflow.sharedViewState."
MAX_RANKS = 16
"""Ranks that get a chart, or a line, of their own; beyond, the spread is drawn."""
VIEW_NAMES = ("Memory per rank", "Throughput", "Where a step goes")
_RANK = re.compile(r"(?P<group>.+)/(?P<rank>rank_\d+)")
_SPREAD = ("max", "median", "min")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One saved view."""

    name: str
    """One of `VIEW_NAMES`."""
    id: str
    tag_value: str

    @property
    def tag_key(self) -> str:
        """The experiment's tag that holds it."""
        return TAG_PREFIX + self.id


def view_id(name: str, *, run_id: str | None) -> str:
    """What a view is called in its link: of one run, or of all runs of the experiment."""
    short = name.lower().replace(" ", "-")
    # Short, since it stands in a link that people read; enough to tell an experiment's runs apart.
    return f"orchestrator-{short}" if run_id is None else f"{run_id[:12]}-{short}"


def view_links(base_url: str, run: TrackedRun) -> dict[str, str]:
    """The addresses that open a run's views, by name.

    They are to be used as they are: with a filter or an order in the address the page ignores the
    view, and without the mode it shows a table.
    """
    return {
        name: f"{base_url.rstrip('/')}/#/experiments/{run.experiment_id}/runs"
        f"?viewStateShareKey={view_id(name, run_id=run.run_id)}"
        "&compareRunsMode=CHART&workflowType=machine_learning"
        for name in VIEW_NAMES
    }


def run_views(metric_keys: Iterable[str], *, run_id: str) -> list[View]:
    """Views of one run; opened by link, not listed on the page, which lists forty at most.

    Args:
        metric_keys: what the run has.
        run_id: the run.
    """
    keys = sorted(set(metric_keys))
    only_this = {"searchFilter": f"attributes.run_id = '{run_id}'", "runListHidden": True}
    return [
        View(
            name=name,
            id=view_id(name, run_id=run_id),
            tag_value=packed(_state(name, keys, bars=True) | only_this, keys),
        )
        for name in VIEW_NAMES
    ]


def experiment_views(metric_keys: Iterable[str], *, now_ms: int) -> list[View]:
    """The same views of all runs of an experiment, listed in the page's menu of views.

    Args:
        metric_keys: what its newest run has.
        now_ms: milliseconds since 1970.
    """
    keys = sorted(set(metric_keys))
    views = []
    for number, name in enumerate(VIEW_NAMES):
        # The menu has the newest first.
        made_ms = now_ms - number
        envelope = {"name": name, "createdAt": made_ms, "updatedAt": made_ms}
        room = MAX_TAG_VALUE - 200
        state = packed(_state(name, keys, bars=False), keys, room=room)
        views.append(
            View(
                name=name,
                id=view_id(name, run_id=None),
                tag_value=json.dumps({**envelope, "state": state}),
            )
        )
    return views


def _state(name: str, keys: Sequence[str], *, bars: bool) -> dict[str, Any]:
    sections, charts = {
        "Memory per rank": _memory,
        "Throughput": _throughput,
        "Where a step goes": _step,
    }[name](keys, bars)
    return {
        "compareRunSections": sections,
        "compareRunCharts": charts,
        # Else the page sorts sections by name when it adds one for a new metric.
        "isAccordionReordered": True,
        **flat_list(newest_first=True),
    }


def _memory(keys: Sequence[str], bars: bool) -> tuple[list[Chart], list[Chart]]:
    sections = [section("peak", "Memory per rank: the peak", columns=1, height=300)]
    charts = _of_ranks(keys, "memory_peak_mib", section="peak", title="Peak of every rank, MiB")
    ranks = _labels(keys, "memory_peak_mib")
    if bars and ranks:
        sections.append(
            section("ledger", "Memory per rank: what fills it, MiB", columns=2, height=400)
        )
        for rank in ranks:
            lines = [f"memory_{category}_mib/{rank}" for category in CATEGORIES]
            there = [line for line in lines if line in keys]
            if there:
                # A bar chart has a colour for each metric; a line chart only one for each run.
                charts.append(chart("BAR", f"ledger-{rank}", "ledger", there, title=rank))
    sections.append(section("rest", "Memory per rank: resident, on the host, on NVMe", columns=2))
    for group, title in (
        ("memory_rss_mib", "Resident memory of every rank, MiB"),
        ("memory_host_mib", "Offloaded to the host, MiB"),
        ("memory_reserved_mib", "Held by CUDA's allocator, MiB"),
        ("memory_nvme_mib", "Swapped out to NVMe, MiB"),
    ):
        charts += _of_ranks(keys, group, section="rest", title=title)
    return sections, charts


def _throughput(keys: Sequence[str], _bars: bool) -> tuple[list[Chart], list[Chart]]:
    sections = [section("job", "Throughput", columns=2, height=330)]
    charts = [
        chart("LINE", key, "job", [key], title=title)
        for key, title in (
            ("throughput/samples_per_s", "All ranks together, samples/s"),
            ("throughput/tokens_per_s", "All ranks together, tokens/s"),
            ("throughput/tflops_per_s", "All ranks together, TFLOP/s"),
            ("throughput/mfu_ratio", "Share of what the devices could do at most (MFU)"),
        )
        if key in keys
    ]
    charts += _of_ranks(keys, "throughput_per_rank", section="job", title="Every rank, samples/s")
    return sections, charts


def _step(keys: Sequence[str], _bars: bool) -> tuple[list[Chart], list[Chart]]:
    sections = [
        section("parts", "Where a step goes", columns=1, height=450),
        section("ranks", "Where a step goes: every rank", columns=2),
    ]
    parts = ("data", "forward", "backward", "optimizer", "logging", "checkpoint", "communication")
    there = [f"time_ms/{part}" for part in parts if f"time_ms/{part}" in keys]
    charts = []
    if there:
        charts.append(chart("LINE", "parts", "parts", there, title="Parts of a step, ms"))
    for part in ("step", *parts):
        charts += _of_ranks(
            keys, f"time_ms_{part}", section="ranks", title=f"{part.capitalize()}, ms"
        )
    return sections, charts


def _labels(keys: Sequence[str], group: str) -> list[str]:
    """The first ranks of a group of metrics."""
    found = [m["rank"] for key in keys if (m := _RANK.fullmatch(key)) and m["group"] == group]
    return sorted(found)[:MAX_RANKS]


def _of_ranks(keys: Sequence[str], group: str, *, section: str, title: str) -> list[Chart]:
    """One chart with a line a rank, or of their spread where they are many; none without any."""
    spread = [f"{group}/{name}" for name in _SPREAD if f"{group}/{name}" in keys]
    lines = spread or [f"{group}/{label}" for label in _labels(keys, group)]
    return [chart("LINE", group, section, lines, title=title)] if lines else []
