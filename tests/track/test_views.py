"""What a view holds; that MLflow's page opens it is for `test_views_in_a_browser`."""

import base64
import json
import zlib

import pytest

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.track.base import TrackedRun
from orchestrator.track.charts import MAX_TAG_VALUE
from orchestrator.track.views import (
    VIEW_NAMES,
    experiment_views,
    run_views,
    view_links,
)

PARTS = ("data", "forward", "backward", "optimizer", "logging")


def keys_of(n_ranks):
    ranks = [f"rank_{rank:02d}" for rank in range(n_ranks)]
    groups = ["memory_peak_mib", "memory_rss_mib", "throughput_per_rank"]
    groups += [f"memory_{category}_mib" for category in CATEGORIES]
    groups += [f"time_ms_{part}" for part in ("step", *PARTS)]
    spread = ["max", "median", "min"] if n_ranks > 16 else []
    return [
        "train/loss",
        "throughput/samples_per_s",
        *(f"time_ms/{part}" for part in PARTS),
        *(f"{group}/{name}" for group in groups for name in (*ranks, *spread)),
    ]


def state_of(text):
    assert text.startswith("deflate;")
    return json.loads(zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))))


def views_of(n_ranks):
    views = run_views(keys_of(n_ranks), run_id="abc")
    return {view.name: state_of(view.tag_value) for view in views}


def charts_in(state):
    return [chart for chart in state["compareRunCharts"] if not chart.get("deleted")]


def test_the_views_are_those_that_are_promised():
    assert tuple(views_of(2)) == VIEW_NAMES == (
        "Memory per rank", "Throughput", "Where a step goes",
    )  # fmt: skip


def test_every_rank_s_peak_is_in_one_chart_and_its_ledger_in_one_of_its_own():
    charts = charts_in(views_of(2)["Memory per rank"])
    assert charts[0]["selectedMetricKeys"] == [
        "memory_peak_mib/rank_00", "memory_peak_mib/rank_01",
    ]  # fmt: skip
    ledgers = [chart for chart in charts if chart["type"] == "BAR"]
    assert len(ledgers) == 2
    assert ledgers[1]["selectedMetricKeys"] == [
        f"memory_{category}_mib/rank_01" for category in CATEGORIES
    ]


def test_beyond_16_ranks_the_spread_is_drawn_and_the_first_16_ledgers():
    charts = charts_in(views_of(64)["Memory per rank"])
    assert charts[0]["selectedMetricKeys"] == [
        "memory_peak_mib/max", "memory_peak_mib/median", "memory_peak_mib/min",
    ]  # fmt: skip
    assert len([chart for chart in charts if chart["type"] == "BAR"]) == 16


def test_the_parts_of_a_step_are_in_one_chart():
    parts, *per_rank = charts_in(views_of(2)["Where a step goes"])
    assert parts["selectedMetricKeys"] == [f"time_ms/{part}" for part in PARTS]
    assert all(len(chart["selectedMetricKeys"]) == 2 for chart in per_rank)


def test_no_chart_shows_what_the_run_does_not_have():
    keys = set(keys_of(2))
    for state in views_of(2).values():
        for chart in charts_in(state):
            assert set(chart["selectedMetricKeys"]) <= keys


def test_metrics_without_a_chart_are_marked_so_that_the_page_adds_none():
    for state in views_of(2).values():
        named = {chart["metricKey"] for chart in state["compareRunCharts"]}
        assert named == {chart["metricKey"] for chart in charts_in(state)} | (
            set(keys_of(2)) - {chart["metricKey"] for chart in charts_in(state)}
        )


def test_every_chart_lies_in_a_section_of_its_view():
    for state in views_of(2).values():
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in charts_in(state)} <= sections


@pytest.mark.parametrize("n_ranks", [1, 2, 64, 1000])
def test_no_view_is_too_long_for_its_tag(n_ranks):
    keys = keys_of(n_ranks)
    for view in [*run_views(keys, run_id="abc"), *experiment_views(keys, now_ms=1)]:
        assert len(view.tag_value) <= MAX_TAG_VALUE


def test_a_run_s_view_shows_that_run_alone_and_is_not_listed():
    (view, *_) = run_views(keys_of(2), run_id="abc")
    assert state_of(view.tag_value)["searchFilter"] == "attributes.run_id = 'abc'"


def test_runs_of_a_comparison_are_not_folded_away_in_any_view():
    # By date, the page's own order, it draws no run that is part of another.
    keys = keys_of(2)
    listed = [json.loads(view.tag_value)["state"] for view in experiment_views(keys, now_ms=1)]
    for text in [*listed, *(view.tag_value for view in run_views(keys, run_id="abc"))]:
        assert state_of(text)["orderByKey"] == "tags.`orchestrator.run_key`"
        assert state_of(text)["orderByAsc"] is False


def test_the_experiment_s_views_are_named_and_show_all_runs():
    views = experiment_views(keys_of(2), now_ms=5000)
    envelopes = [json.loads(view.tag_value) for view in views]
    assert tuple(envelope["name"] for envelope in envelopes) == VIEW_NAMES
    assert all("searchFilter" not in state_of(envelope["state"]) for envelope in envelopes)


def test_a_link_opens_the_charts_and_nothing_that_would_hide_the_view():
    run = TrackedRun(experiment_id="7", run_id="abc")
    link = view_links("http://127.0.0.1:5000/", run)["Throughput"]
    assert link == (
        "http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=abc-throughput"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def test_a_run_without_metrics_has_views_without_charts():
    for view in run_views([], run_id="abc"):
        assert state_of(view.tag_value)["compareRunCharts"] == []
