import re

import pytest

from orchestrator.errors import SpecError, UsageError
from orchestrator.track.base import TrackingUnavailableError
from orchestrator.track.store import create_store, embedded_store, store_at, store_of
from tests import small_jobs


def test_the_embedded_store_is_absolute_and_in_the_state_folder(tmp_path):
    store = embedded_store(tmp_path)
    assert store.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store.database == tmp_path / "mlflow.db"
    assert store.artifact_root == tmp_path / "artifacts"
    assert store_at(None, state=tmp_path) == store


def test_a_sqlite_uri_of_the_users_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = store_at("sqlite:///mine/runs.db", state=tmp_path / "state")
    assert store.uri == f"sqlite:///{tmp_path}/mine/runs.db"
    assert store.artifact_root == tmp_path / "mine" / "artifacts"


@pytest.mark.parametrize("uri", ["http://host:5000", "postgresql+psycopg2://u@h/db", "databricks"])
def test_a_server_decides_about_its_artifacts(uri, tmp_path):
    store = store_at(uri, state=tmp_path)
    assert (store.uri, store.database, store.artifact_root) == (uri, None, None)


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns", "", "ftp://host/x", "host:5000"])
def test_a_uri_that_mlflow_cannot_use_is_refused_in_one_line(uri, tmp_path):
    with pytest.raises(UsageError, match=r"is no tracking store; write http://host:port, .*$"):
        store_at(uri, state=tmp_path)


@pytest.mark.parametrize("path", ["new/x.db", "x.db"])
def test_only_the_last_folder_of_a_sqlite_file_may_be_missing(path, tmp_path):
    assert store_at(f"sqlite:///{tmp_path}/{path}", state=tmp_path).database == tmp_path / path
    assert list(tmp_path.iterdir()) == [], "looking changed something"


def test_a_sqlite_file_below_folders_that_are_not_there_is_refused(tmp_path):
    words = f"there is no folder {tmp_path}/no, in which to make such for x.db; make it, or"
    with pytest.raises(UsageError, match=re.escape(words)):
        store_at(f"sqlite:///{tmp_path}/no/such/x.db", state=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_used_is_told_with_its_place_in_the_file(tmp_path):
    job = small_jobs.write_job(tmp_path, tracking={"uri": f"sqlite:///{tmp_path}/no/such/x.db"})
    with pytest.raises(SpecError, match=r"job\.yaml:8:12: tracking\.uri: there is no folder"):
        store_of(job, state=tmp_path)


def test_characters_that_uris_read_as_their_own_are_escaped(tmp_path):
    store = embedded_store(tmp_path / "100% sure?")
    assert store.uri == f"sqlite:///{tmp_path}/100%25 sure%3F/mlflow.db"
    assert store_at(store.uri, state=tmp_path) == store


def test_a_database_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"mine")
    create_store(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"mine"


def test_a_database_that_cannot_be_made_is_said_to_be_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrackingUnavailableError, match=r"file/mlflow\.db cannot be created"):
        create_store(tmp_path / "file" / "mlflow.db")
