"""One class of tests for every store: what holds for the twin in memory holds for MLflow."""

import base64
import json
import sqlite3
import threading
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import (
    COMPARISON,
    KIND_TAG,
    RunStart,
    RunStatus,
    TrackedRun,
    TrackingRefusedError,
    TrackingUnavailableError,
    run_link,
    status_of,
)
from orchestrator.track.comparison_view import COLOURS
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.store import Store


def points_of(n_points, *, key="train/loss"):
    return [
        MetricPoint(key=key, value=step / 8, step=step, time_ms=1000 + step)
        for step in range(1, n_points + 1)
    ]


class MemoryReader:
    def __init__(self, tracker):
        self.tracker = tracker

    def points(self, run):
        points = self.tracker.runs[run.run_id].points
        return sorted((p.key, p.value, p.step, p.time_ms) for p in points)

    def status(self, run):
        stored = self.tracker.runs[run.run_id]
        return stored.status, stored.end_time_ms

    def parent(self, run):
        return self.tracker.runs[run.run_id].parent_id

    def is_running(self, run):
        return self.tracker.runs[run.run_id].status is None

    def file(self, run, name):
        return self.tracker.runs[run.run_id].files[name]

    def n_runs(self):
        return len(self.tracker.runs)

    def settings(self, run):
        start = self.tracker.runs[run.run_id].start
        return start.name, start.start_time_ms, start.params["training.steps"], start.tags


class SqliteReader:
    def __init__(self, store):
        self.store = store

    def rows(self, query, *values):
        connection = sqlite3.connect(self.store.database)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def points(self, run):
        query = "SELECT key, value, step, timestamp FROM metrics WHERE run_uuid = ?"
        return sorted(self.rows(query, run.run_id))

    def status(self, run):
        return self.rows("SELECT status, end_time FROM runs WHERE run_uuid = ?", run.run_id)[0]

    def parent(self, run):
        query = "SELECT value FROM tags WHERE run_uuid = ? AND key = 'mlflow.parentRunId'"
        return next((value for (value,) in self.rows(query, run.run_id)), None)

    def is_running(self, run):
        (status, _) = self.status(run)
        return status == "RUNNING"

    def file(self, run, name):
        (uri,) = self.rows("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run.run_id)[0]
        return (Path(unquote(urlsplit(uri).path)) / name).read_bytes()

    def n_runs(self):
        return self.rows("SELECT count(*) FROM runs")[0][0]

    def settings(self, run):
        query = "SELECT name, start_time FROM runs WHERE run_uuid = ?"
        name, start_time_ms = self.rows(query, run.run_id)[0]
        query = "SELECT value FROM params WHERE run_uuid = ? AND key = 'training.steps'"
        steps = self.rows(query, run.run_id)[0][0]
        tags = self.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run.run_id)
        return name, start_time_ms, steps, dict(tags)


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.ray)])
def tracked(request):
    if request.param == "memory":
        tracker = InMemoryTracker()
        return tracker, MemoryReader(tracker)
    store = request.getfixturevalue("mlflow_store")
    return MlflowTracker(store), SqliteReader(store)


class TestEveryTracker:
    def test_a_run_starts_with_its_name_time_parameters_and_tags(self, tracked, run_start):
        tracker, stored = tracked
        name, start_time_ms, steps, tags = stored.settings(tracker.start(run_start))
        assert (name, start_time_ms, steps) == ("small-zero2", 1_000_000, "4")
        assert tags["strategy"] == "zero2"

    def test_a_key_names_one_run_however_often_it_starts(self, tracked, run_start):
        tracker, stored = tracked
        first = tracker.start(run_start)
        changed = RunStart(**{**run_start.to_json(), "params": {"training.steps": "9"}})
        assert tracker.start(changed) == first
        other = tracker.start(RunStart(**{**run_start.to_json(), "key": "small-2"}))
        assert other.run_id != first.run_id
        assert other.experiment_id == first.experiment_id
        assert stored.n_runs() == 2

    def test_points_that_are_sent_twice_are_there_once(self, tracked, run_start):
        tracker, stored = tracked
        run = tracker.start(run_start)
        tracker.log_points(run, points_of(3))
        tracker.log_points(run, points_of(4))
        assert stored.points(run) == [
            ("train/loss", 0.125, 1, 1001),
            ("train/loss", 0.25, 2, 1002),
            ("train/loss", 0.375, 3, 1003),
            ("train/loss", 0.5, 4, 1004),
        ]

    def test_more_points_than_a_call_takes_arrive(self, tracked, run_start):
        tracker, stored = tracked
        run = tracker.start(run_start)
        tracker.log_points(run, points_of(2001))
        assert len(stored.points(run)) == 2001

    def test_a_machines_name_is_kept_with_all_its_parts(self, tracked, run_start):
        tracker, stored = tracked
        run = tracker.start(run_start)
        tracker.log_points(run, points_of(1, key="system/node_00/cpu_utilization_percentage"))
        assert stored.points(run) == [("system/node_00/cpu_utilization_percentage", 0.125, 1, 1001)]

    def test_files_keep_their_name_and_content(self, tracked, run_start, tmp_path):
        tracker, stored = tracked
        run = tracker.start(run_start)
        (tmp_path / "rank_01.txt").write_text("Grüße\n", encoding="utf-8")
        tracker.log_file(run, tmp_path / "rank_01.txt", name="logs/rank_01.txt")
        tracker.log_file(run, tmp_path / "rank_01.txt", name="rank_01.txt")
        assert stored.file(run, "logs/rank_01.txt") == "Grüße\n".encode()
        assert stored.file(run, "rank_01.txt") == "Grüße\n".encode()

    @pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
    def test_a_finished_run_has_its_end_and_still_takes_points(self, tracked, run_start, status):
        tracker, stored = tracked
        run = tracker.start(run_start)
        tracker.finish(run, status=status, end_time_ms=2_000_000)
        tracker.log_points(run, points_of(1))
        assert stored.status(run) == (status, 2_000_000)
        assert len(stored.points(run)) == 1

    def test_a_child_lies_below_the_run_that_it_names(self, tracked, run_start):
        tracker, stored = tracked
        whole = tracker.start(run_start)
        child = tracker.start(replace(run_start, key="small-1-00", parent_key="small-1"))
        assert stored.parent(child) == whole.run_id != child.run_id
        assert stored.parent(whole) is None

    def test_a_child_whose_parent_is_missing_is_not_made_until_that_one_is_there(
        self, tracked, run_start
    ):
        tracker, stored = tracked
        child = replace(run_start, key="small-1-00", parent_key="small-1")
        with pytest.raises(TrackingUnavailableError, match="run small-1"):
            tracker.start(child)
        assert stored.n_runs() == 0
        whole = tracker.start(run_start)
        assert stored.parent(tracker.start(child)) == whole.run_id

    def test_a_run_of_another_experiment_is_no_parent(self, tracked, run_start):
        tracker, stored = tracked
        tracker.start(replace(run_start, experiment="other"))
        with pytest.raises(TrackingUnavailableError, match="run small-1"):
            tracker.start(replace(run_start, key="small-1-00", parent_key="small-1"))
        assert stored.n_runs() == 1

    def test_a_run_that_had_ended_runs_again_once_it_starts_again(self, tracked, run_start):
        tracker, stored = tracked
        run = tracker.start(run_start)
        tracker.finish(run, status="KILLED", end_time_ms=2_000_000)
        assert not stored.is_running(run)
        assert tracker.start(run_start) == run
        assert stored.is_running(run)
        tracker.finish(run, status="FINISHED", end_time_ms=3_000_000)
        assert stored.status(run) == ("FINISHED", 3_000_000)

    def test_a_run_that_is_not_there_is_refused(self, tracked, run_start):
        tracker, _ = tracked
        tracker.start(run_start)
        with pytest.raises(TrackingRefusedError, match="0123456789abcdef"):
            tracker.log_points(
                TrackedRun(experiment_id="1", run_id="0123456789abcdef"), points_of(1)
            )


@pytest.mark.ray
class TestAComparisonInMlflow:
    @pytest.fixture
    def ended(self, mlflow_store, run_start):
        """Two strategies, a killed attempt at one of them, and a comparison that has ended."""
        tracker = MlflowTracker(mlflow_store)
        whole = tracker.start(replace(run_start, tags={KIND_TAG: COMPARISON}))
        runs = {}
        # Not in the order of their keys.
        ended: dict[str, RunStatus] = {"01": "FINISHED", "00": "FAILED", "00.1": "KILLED"}
        for key, status in ended.items():
            child = replace(run_start, key=f"small-1-{key}", parent_key="small-1")
            runs[key] = tracker.start(child)
            tracker.log_points(runs[key], points_of(1, key=f"summary/x_{key}"))
            tracker.finish(runs[key], status=status, end_time_ms=2_000_000)
        tracker.finish(whole, status="FINISHED", end_time_ms=3_000_000)
        return tracker, SqliteReader(mlflow_store), whole, runs

    def test_its_view_knows_what_its_strategies_have_and_the_comparison_has_no_other(self, ended):
        _, stored, whole, runs = ended
        query = "SELECT key, value FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'"
        views = dict(stored.rows(query))
        of_whole = [key for key in views if whole.run_id[:12] in key]
        assert of_whole == [f"mlflow.sharedViewState.{whole.run_id[:12]}-comparison"]
        packed = views[of_whole[0]].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        assert whole.run_id in state["searchFilter"]
        hidden = {chart.get("metricKey") for chart in state["compareRunCharts"]}
        assert {"summary/x_00", "summary/x_01"} <= hidden
        assert len([key for key in views if runs["00"].run_id[:12] in key]) > 1

    def test_its_strategies_get_colours_in_their_order_and_keep_those_they_have(
        self, ended, run_start
    ):
        tracker, stored, whole, runs = ended

        def colours():
            query = "SELECT run_uuid, value FROM tags WHERE key = 'mlflow.runColor'"
            return dict(stored.rows(query))

        first, second = COLOURS[:2]
        assert colours() == {runs["00"].run_id: first, runs["01"].run_id: second}
        later = tracker.start(replace(run_start, key="small-1-000", parent_key="small-1"))
        tracker.finish(whole, status="FINISHED", end_time_ms=3_000_000)
        assert colours() == {
            runs["00"].run_id: first, runs["01"].run_id: second, later.run_id: COLOURS[2],
        }  # fmt: skip


@pytest.mark.ray
def test_mlflow_keeps_long_values_cut_and_odd_names_mended(mlflow_store, run_start):
    run = MlflowTracker(mlflow_store).start(run_start)
    query = "SELECT length(value) FROM params WHERE run_uuid = ? AND key = 'odd name_'"
    assert SqliteReader(mlflow_store).rows(query, run.run_id) == [(6000,)]


@pytest.mark.ray
def test_mlflow_takes_more_parameters_than_one_call_does(mlflow_store, run_start):
    params = {f"p{number}": "1" for number in range(250)}
    run = MlflowTracker(mlflow_store).start(
        RunStart(**{**run_start.to_json(), "params": params, "tags": params})
    )
    rows = SqliteReader(mlflow_store).rows
    assert rows("SELECT count(*) FROM params WHERE run_uuid = ?", run.run_id) == [(250,)]
    query = "SELECT count(*) FROM tags WHERE run_uuid = ? AND key LIKE 'p%'"
    assert rows(query, run.run_id) == [(250,)]


@pytest.mark.ray
def test_an_experiment_that_was_deleted_is_restored(mlflow_store, run_start):
    tracker = MlflowTracker(mlflow_store)
    first = tracker.start(run_start)
    connection = sqlite3.connect(mlflow_store.database)
    connection.execute(
        "UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name LIKE 'small%'"
    )
    connection.commit()
    connection.close()
    again = MlflowTracker(mlflow_store).start(RunStart(**{**run_start.to_json(), "key": "small-2"}))
    assert again.experiment_id == first.experiment_id


@pytest.mark.ray
def test_two_processes_that_open_a_fresh_database_leave_a_whole_one(race):
    assert (race.exit_codes, race.words) == ([0, 0], ["", ""])
    assert sorted(path.name for path in race.database.parent.iterdir()) == [
        "mlflow.db",
        "mlflow.db.lock",
    ]
    connection = sqlite3.connect(race.database)
    assert connection.execute("SELECT count(*) FROM alembic_version").fetchall() == [(1,)]
    connection.close()


def answer(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815, RUF100

        def log_message(self, *_):
            pass

    return HTTPServer(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, b"busy", TrackingUnavailableError),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "x"}', TrackingUnavailableError),
        (429, b"slow down", TrackingUnavailableError),
        (408, b"", TrackingUnavailableError),
        (200, b'{"experiment": {"exp', TrackingUnavailableError),
        (401, b"who are you", TrackingRefusedError),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', TrackingRefusedError),
    ],
)
def test_a_server_that_may_recover_is_told_from_one_that_refuses(status, body, error, run_start):
    server = answer(status, body)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        uri = f"http://127.0.0.1:{server.server_port}"
        tracker = MlflowTracker(Store(uri=uri, database=None, artifact_root=None))
        with pytest.raises(error, match=r"\w"):
            tracker.start(run_start)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_is_not_there_may_come_back(run_start):
    # Port 9 discards, where anything listens at all.
    store = Store(uri="http://127.0.0.1:9", database=None, artifact_root=None)
    with pytest.raises(TrackingUnavailableError, match=r"127\.0\.0\.1"):
        MlflowTracker(store).start(run_start)


def test_a_run_key_must_be_one_that_stores_can_search_for(run_start):
    with pytest.raises(ValueError, match='run key "it\'s"'):
        RunStart(**{**run_start.to_json(), "key": "it's"})


def test_the_key_of_a_parent_must_be_one_too(run_start):
    with pytest.raises(ValueError, match="run key 'a b'"):
        replace(run_start, parent_key="a b")


def test_outcomes_are_finished_killed_or_failed():
    assert status_of("ok") == "FINISHED"
    assert status_of("interrupted") == "KILLED"
    assert {status_of("failed"), status_of("oom"), status_of("diverged")} == {"FAILED"}


def test_the_link_leads_to_the_runs_page():
    run = TrackedRun(experiment_id="3", run_id="abc")
    assert run_link("http://localhost:5000/", run) == (
        "http://localhost:5000/#/experiments/3/runs/abc?workflowType=machine_learning"
    )
