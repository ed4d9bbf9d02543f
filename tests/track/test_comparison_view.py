"""What a comparison's view holds; `test_comparison_in_a_browser` opens it in MLflow's page."""

import base64
import json
import zlib

import pytest

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.metrics import METRICS
from orchestrator.track.base import TrackedRun
from orchestrator.track.charts import MAX_TAG_VALUE
from orchestrator.track.comparison_view import (
    COLOURS,
    comparison_link,
    comparison_view,
    missing_colours,
)

ANSWERS = ("summary/peak_mib", "summary/samples_per_s")


def keys_of(n_ranks):
    """All that a strategy of some ranks can have."""
    ranks = [f"rank_{rank:02d}" for rank in range(n_ranks)]
    names = {metric.name for metric in METRICS}
    return sorted({name.replace("{rank}", rank) for name in names for rank in ranks})


def state_of(keys, *, run_id="abc"):
    text = comparison_view(keys, run_id=run_id).tag_value
    return json.loads(zlib.decompress(base64.b64decode(text.removeprefix("deflate;"))))


def charts_in(state):
    return [chart for chart in state["compareRunCharts"] if not chart.get("deleted")]


def drawn(chart):
    """The metrics that a chart draws."""
    if chart["type"] == "SCATTER":
        return {chart["xaxis"]["key"], chart["yaxis"]["key"]}
    if chart["type"] == "DIFFERENCE":
        return set()
    return set(chart.get("selectedMetricKeys") or [chart["dataAccessKey"]])


def test_memory_and_speed_come_first_and_side_by_side():
    first, second, against, *_ = charts_in(state_of(keys_of(2)))
    assert [drawn(first), drawn(second)] == [{ANSWERS[0]}, {ANSWERS[1]}]
    assert first["type"] == second["type"] == "BAR"
    assert (against["xaxis"]["key"], against["yaxis"]["key"]) == ANSWERS
    assert state_of(keys_of(2))["compareRunSections"][0]["columns"] == 2


def test_bars_are_titled_in_words_and_drawn_from_the_metric():
    peak, *_ = charts_in(state_of(ANSWERS))
    assert peak["metricKey"] == "Peak memory of the fullest rank, MiB"
    assert peak["dataAccessKey"] == "summary/peak_mib"
    # The page would title it by this one.
    assert "selectedMetricKeys" not in peak


def test_every_category_of_the_ledger_has_bars():
    in_ledger = [c for c in charts_in(state_of(keys_of(2))) if c["metricSectionId"] == "ledger"]
    assert [chart["metricKey"] for chart in in_ledger] == [f"{name}, MiB" for name in CATEGORIES]
    assert [drawn(chart) for chart in in_ledger] == [
        {f"summary/peak_{category}_mib"} for category in CATEGORIES
    ]


def test_the_time_of_a_step_and_of_its_parts_has_bars():
    in_parts = [c for c in charts_in(state_of(keys_of(2))) if c["metricSectionId"] == "parts"]
    assert [chart["metricKey"] for chart in in_parts] == [
        "step, ms", "forward, ms", "backward, ms", "optimizer, ms", "communication, ms", "data, ms",
    ]  # fmt: skip
    assert drawn(in_parts[1]) == {"summary/forward_ms"}


def test_no_chart_shows_what_no_strategy_has():
    for keys in (keys_of(2), ANSWERS, ["train/loss"], ["forecast/peak_mib"], []):
        assert all(drawn(chart) <= set(keys) for chart in charts_in(state_of(keys)))


def test_strategies_without_metrics_are_told_apart_by_their_parameters_alone():
    (only,) = charts_in(state_of([]))
    assert (only["type"], only["compareGroups"]) == ("DIFFERENCE", ["Parameters"])
    assert only["showDifferencesOnly"] is True


@pytest.mark.parametrize("n_ranks", [1, 2, 16])
def test_the_page_has_no_metric_left_to_add_a_chart_of_its_own_for(n_ranks):
    named = {chart.get("metricKey") for chart in state_of(keys_of(n_ranks))["compareRunCharts"]}
    assert set(keys_of(n_ranks)) <= named


def test_every_chart_has_a_name_of_its_own_and_lies_in_a_section():
    state = state_of(keys_of(2))
    names = [chart["uuid"] for chart in charts_in(state)]
    assert len(set(names)) == len(names)
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in charts_in(state)} == sections


def test_all_strategies_of_this_comparison_are_shown_and_no_killed_attempts():
    state = state_of(ANSWERS, run_id="0123456789abcdef")
    assert state["searchFilter"] == (
        "tags.mlflow.parentRunId = '0123456789abcdef' and attributes.status != 'KILLED'"
    )
    assert state["runsHiddenMode"] == "SHOW_ALL"


def test_strategies_stand_in_the_order_of_their_keys_and_not_below_the_comparison():
    state = state_of(ANSWERS)
    assert (state["orderByKey"], state["orderByAsc"]) == ("tags.`orchestrator.run_key`", True)


@pytest.mark.parametrize("n_ranks", [1, 16, 1000])
def test_the_view_fits_into_its_tag(n_ranks):
    assert len(comparison_view(keys_of(n_ranks), run_id="a" * 32).tag_value) <= MAX_TAG_VALUE


def test_the_link_opens_the_view_that_is_written():
    run = TrackedRun(experiment_id="7", run_id="0123456789abcdef")
    view = comparison_view(ANSWERS, run_id=run.run_id)
    assert view.tag_key == "mlflow.sharedViewState.0123456789ab-comparison"
    assert comparison_link("http://127.0.0.1:5000/", run) == (
        "http://127.0.0.1:5000/#/experiments/7/runs?viewStateShareKey=0123456789ab-comparison"
        "&compareRunsMode=CHART&workflowType=machine_learning"
    )


def test_twelve_strategies_have_twelve_colours():
    found = missing_colours(dict.fromkeys("abcdefghijkl"))
    assert list(found) == list("abcdefghijkl")
    assert len(set(found.values())) == 12


def test_a_strategy_that_comes_later_gets_the_colour_that_is_free():
    taken = dict(zip("abc", COLOURS[:3], strict=True))
    assert missing_colours({**taken, "d": None}) == {"d": COLOURS[3]}
    assert missing_colours({"a": COLOURS[1], "b": None, "c": None}) == {
        "b": COLOURS[0],
        "c": COLOURS[2],
    }


def test_a_colour_that_someone_chose_is_left_alone():
    assert missing_colours({"a": "#123456"}) == {}
    assert missing_colours({"a": "#123456", "b": None}) == {"b": COLOURS[0]}


def test_beyond_twelve_colours_come_again_equally_often():
    found = list(missing_colours(dict.fromkeys(map(str, range(30)))).values())
    assert {found.count(colour) for colour in COLOURS} == {2, 3}
