"""Charts of MLflow's page, as the page itself writes them down. Pure.

Source: mlflow 3.17.2, the page's own bundle (server/js/build).
"""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from orchestrator.track.base import KEY_TAG

MAX_TAG_VALUE = 20_000
"""Characters; MLflow refuses a longer tag of an experiment."""

MAX_RUNS = 100
"""Runs that the page asks its server for at first, and so draws."""

Chart = dict[str, Any]


def section(uuid: str, name: str, *, columns: int, height: int = 360) -> dict[str, Any]:
    """A section that charts stand in.

    Args:
        uuid: by which charts name it.
        name: what the page writes above it.
        columns: charts in a row.
        height: of a chart, pixels.
    """
    return {
        "uuid": uuid,
        "name": name,
        "display": True,
        "isReordered": True,
        "columns": columns,
        "cardHeight": height,
    }


def chart(kind: str, uuid: str, section: str, keys: Sequence[str], *, title: str) -> Chart:
    """A chart of one or more metrics.

    Args:
        kind: `BAR` or `LINE`.
        uuid: no other chart of the view has it.
        section: the `uuid` of its section.
        keys: the metrics.
        title: what the page writes above it; not shown of bars.
    """
    return {
        "type": kind,
        "uuid": uuid,
        "metricSectionId": section,
        "metricKey": keys[0],
        "selectedMetricKeys": list(keys),
        # Left out, the page smooths by 70 of 100.
        "lineSmoothness": 0,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
        # The page shows a title of ours only where it has the next key beside it.
        "displayName": title,
        "nodeLevelSystemMetricConfiguration": {"metric": title, "type": "node"},
    }


def bars(uuid: str, section: str, key: str, *, title: str) -> Chart:
    """A bar a run for one metric, each in its run's colour.

    Args:
        uuid: no other chart of the view has it.
        section: the `uuid` of its section.
        key: the metric.
        title: what the page writes above it.
    """
    return {
        "type": "BAR",
        "uuid": uuid,
        "metricSectionId": section,
        # Above bars the page writes the metric's key; where to find the values is another's word.
        "metricKey": title,
        "dataAccessKey": key,
    }


def scatter(uuid: str, section: str, *, x: str, y: str) -> Chart:
    """A dot a run, of one metric over another.

    Args:
        uuid: no other chart of the view has it.
        section: the `uuid` of its section.
        x: the metric to the right.
        y: the metric upwards.
    """
    return {
        "type": "SCATTER",
        "uuid": uuid,
        "metricSectionId": section,
        "xaxis": {"key": x, "type": "METRIC"},
        "yaxis": {"key": y, "type": "METRIC"},
        "runsCountToCompare": MAX_RUNS,
    }


def differences(uuid: str, section: str, *, title: str) -> Chart:
    """A table of the parameters that are not the same in all runs, with a column a run.

    Args:
        uuid: no other chart of the view has it.
        section: the `uuid` of its section.
        title: what the page writes above it.
    """
    return {
        "type": "DIFFERENCE",
        "uuid": uuid,
        "metricSectionId": section,
        "chartName": title,
        "compareGroups": ["Parameters"],
        "showChangeFromBaseline": False,
        "showDifferencesOnly": True,
        "baselineColumnUuid": "",
    }


def flat_list(*, newest_first: bool) -> dict[str, Any]:
    """The part of a state that has the page list runs by their key, each in a row of its own.

    In the page's own order, by date, it puts the runs of a comparison below the comparison's, folds
    them away, and draws none of them; even where only they match the filter.
    """
    return {"orderByKey": f"tags.`{KEY_TAG}`", "orderByAsc": not newest_first}


def packed(state: dict[str, Any], keys: Sequence[str], *, room: int = MAX_TAG_VALUE) -> str:
    """The state as the page packs it.

    The page adds a chart of its own for every metric that has none; one that is marked as deleted
    counts. Where these do not fit any more, the page's own charts come below ours.
    """
    drawn = {chart.get("metricKey") for chart in state["compareRunCharts"]}
    hidden = [{"metricKey": key, "deleted": True} for key in keys if key not in drawn]
    whole = {**state, "compareRunCharts": [*state["compareRunCharts"], *hidden]}
    packed = _deflated(whole)
    return packed if len(packed) <= room else _deflated(state)


def _deflated(state: dict[str, Any]) -> str:
    text = json.dumps(state, separators=(",", ":")).encode()
    return "deflate;" + base64.b64encode(zlib.compress(text, 9)).decode()
