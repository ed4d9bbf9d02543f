"""One class of tests for every reader: what holds for the twin in memory holds for MLflow."""

import shutil
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.errors import UsageError
from orchestrator.track.base import (
    COMPARISON,
    KIND_TAG,
    RunStart,
    TrackingRefusedError,
    TrackingUnavailableError,
)
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.mlflow_read import MlflowRunReader, shown_uri
from orchestrator.track.read import ArtifactsUnreadableError, InMemoryRunReader
from orchestrator.track.store import Store, embedded_store, store_at


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.ray)])
def store(request):
    """A tracker, and what makes a reader of what it has written."""
    if request.param == "memory":
        tracker = InMemoryTracker()
        return tracker, lambda: InMemoryRunReader(tracker)
    there = request.getfixturevalue("mlflow_store")
    return MlflowTracker(there), lambda: MlflowRunReader(there)


def start(key, *, at_s=1000, **more):
    named = {"experiment": "small/question", "name": f"run {key}", **more}
    return RunStart(key=key, start_time_ms=at_s * 1000, **named)


class TestEveryReader:
    def test_an_experiments_runs_come_in_the_order_in_which_they_began(self, store):
        tracker, reader = store
        late = tracker.start(start("late", at_s=2000, tags={"mlflow.user": "alice"}))
        early = tracker.start(start("early"))
        tracker.start(start("other", experiment="another question"))
        tracker.finish(late, status="FAILED", end_time_ms=3_000_000)
        found = reader().experiment("small/question")
        assert [run.run_id for run in found] == [early.run_id, late.run_id]
        first, last = found
        assert (first.name, first.started_unix_s, first.experiment) == (
            "run early",
            1000.0,
            "small/question",
        )
        assert (first.status, first.is_over, first.user) == ("RUNNING", False, None)
        assert (last.status, last.is_over, last.user) == ("FAILED", True, "alice")
        assert first.is_ours
        assert first.parent_run_id is None
        assert reader().run(late.run_id) == last

    def test_a_comparison_is_known_with_its_strategies(self, store):
        tracker, reader = store
        parent = tracker.start(start("all", tags={KIND_TAG: COMPARISON}))
        children = [tracker.start(start(key, parent_key="all")) for key in ("one", "two")]
        alone = tracker.start(start("alone"))
        seen = reader()
        assert seen.run(parent.run_id).is_comparison
        assert not seen.run(alone.run_id).is_comparison
        found = seen.children(seen.run(parent.run_id))
        assert {run.run_id for run in found} == {run.run_id for run in children}
        assert {run.parent_run_id for run in found} == {parent.run_id}
        assert seen.children(seen.run(alone.run_id)) == ()

    def test_those_documents_are_given_that_are_there(self, store, tmp_path):
        tracker, reader = store
        run = tracker.start(start("one"))
        (tmp_path / "plan.json").write_text("{}")
        tracker.log_file(run, tmp_path / "plan.json", name="plan.json")
        tracker.log_file(run, tmp_path / "plan.json", name="report/plan.json")
        past = reader().run(run.run_id)
        assert reader().documents(past, ("plan.json", "summary.json")) == {"plan.json": b"{}"}
        assert set(reader().documents(past, ("report/plan.json", "report/no.json"))) == {
            "report/plan.json"
        }
        assert reader().documents(past, ("summary.json",)) == {}

    def test_an_experiment_that_is_not_there_is_told_with_the_one_that_was_meant(self, store):
        tracker, reader = store
        tracker.start(start("one"))
        words = r"^no experiment 'small/qestion'; did you mean 'small/question'\? there are small/"
        with pytest.raises(UsageError, match=words):
            reader().experiment("small/qestion")

    @pytest.mark.parametrize("run_id", ["0" * 32, "nonsense", "a/../b", ""])
    def test_a_run_that_is_not_there_is_told(self, store, run_id):
        tracker, reader = store
        tracker.start(start("one"))
        with pytest.raises(UsageError, match=rf"^no run '{run_id}'; give the id that"):
            reader().run(run_id)


def test_where_nothing_was_ever_recorded_no_database_is_made(tmp_path):
    with pytest.raises(UsageError, match=r"^there is no tracking store .*mlflow\.db yet; launch a"):
        MlflowRunReader(embedded_store(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"some text\n" * 200], ids=["empty", "text"])
def test_a_file_that_is_no_mlflow_database_is_left_as_it_is(content, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(UsageError, match=r"mlflow\.db is no MLflow database; name another"):
        MlflowRunReader(embedded_store(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert (tmp_path / "mlflow.db").read_bytes() == content


def test_a_database_of_another_program_gets_no_tables(tmp_path):
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("CREATE TABLE mine (x)")
    database.commit()
    database.close()
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(UsageError, match="is no MLflow database"):
        MlflowRunReader(embedded_store(tmp_path))
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_a_password_is_not_shown(tmp_path):
    store = store_at("postgresql://me:secret@db.example:5432/runs", state=tmp_path)
    assert shown_uri(store) == "postgresql://db.example:5432/runs"


@pytest.mark.ray
def test_a_database_of_an_older_mlflow_is_not_brought_up_to_date(mlflow_store):
    database = sqlite3.connect(mlflow_store.database)
    # As of an MLflow that did not know this table yet.
    database.execute("DROP TABLE webhook_events")
    database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.commit()
    database.close()
    before = mlflow_store.database.read_bytes()
    with pytest.raises(UsageError, match=r"is of another MLflow version; keep a copy .* upgrade"):
        MlflowRunReader(mlflow_store)
    assert mlflow_store.database.read_bytes() == before


@pytest.mark.ray
def test_looking_changes_nothing_in_the_store_and_leaves_no_files(
    mlflow_store, tmp_path, monkeypatch
):
    run = MlflowTracker(mlflow_store).start(start("one"))
    before = mlflow_store.database.read_bytes()
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    reader = MlflowRunReader(mlflow_store)
    past = reader.run(run.run_id)
    assert reader.experiment("small/question") == (past,)
    assert reader.documents(past, ("plan.json",)) == {}
    assert mlflow_store.database.read_bytes() == before
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.ray
def test_deleted_runs_and_experiments_are_told_as_such(mlflow_store):
    from mlflow.tracking.client import MlflowClient

    tracker = MlflowTracker(mlflow_store)
    run, kept = tracker.start(start("one")), tracker.start(start("two"))
    client = MlflowClient(tracking_uri=mlflow_store.uri)
    client.delete_run(run.run_id)
    reader = MlflowRunReader(mlflow_store)
    assert [one.run_id for one in reader.experiment("small/question")] == [kept.run_id]
    gone = reader.run(run.run_id)
    assert (gone.status, gone.is_over) == ("DELETED", False)
    client.delete_experiment(run.experiment_id)
    with pytest.raises(UsageError, match=r"has been deleted; bring it back with: mlflow experim"):
        reader.experiment("small/question")


@pytest.mark.ray
def test_artifacts_that_lie_on_another_machine_are_told_to_do_so(mlflow_store, tmp_path):
    tracker = MlflowTracker(mlflow_store)
    run = tracker.start(start("one"))
    (tmp_path / "plan.json").write_text("{}")
    tracker.log_file(run, tmp_path / "plan.json", name="plan.json")
    database = sqlite3.connect(mlflow_store.database)
    database.execute("UPDATE runs SET artifact_uri = 's3://bucket/of/bob'")
    database.commit()
    database.close()
    reader = MlflowRunReader(mlflow_store)
    with pytest.raises(ArtifactsUnreadableError, match=r"\w"):
        reader.documents(reader.run(run.run_id), ("plan.json",))


@pytest.mark.ray
def test_artifacts_whose_folder_is_gone_are_not_there(mlflow_store, tmp_path):
    tracker = MlflowTracker(mlflow_store)
    run = tracker.start(start("one"))
    (tmp_path / "plan.json").write_text("{}")
    tracker.log_file(run, tmp_path / "plan.json", name="plan.json")
    shutil.rmtree(mlflow_store.artifact_root)
    reader = MlflowRunReader(mlflow_store)
    assert reader.documents(reader.run(run.run_id), ("plan.json",)) == {}


def answering(status, body):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return HTTPServer(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"<!DOCTYPE HTML>\nnothing here", "it answers with HTTP code 404; is it an MLflow"),
        (401, b"who are you", "it answers with HTTP code 401"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "PERMISSION_DENIED: no"),
    ],
)
@pytest.mark.parametrize("look", ["experiment", "run"])
def test_a_server_that_gives_no_runs_is_told_with_what_it_said(status, body, words, look):
    server = answering(status, body)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        uri = f"http://127.0.0.1:{server.server_port}"
        reader = MlflowRunReader(Store(uri=uri, database=None, artifact_root=None))
        with pytest.raises(TrackingRefusedError, match=f"at {uri} gives no runs: {words}"):
            getattr(reader, look)("x")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_server_that_is_not_there_is_told_in_a_short_line():
    # Port 9 discards, where anything listens at all.
    reader = MlflowRunReader(Store(uri="http://127.0.0.1:9", database=None, artifact_root=None))
    words = r"^the tracking store at http://127\.0\.0\.1:9 does not answer: Connection refused$"
    with pytest.raises(TrackingUnavailableError, match=words):
        reader.experiment("x")
