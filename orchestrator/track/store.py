"""Which tracking store a run goes to; the embedded one is a SQLite file in the state folder.

`create_store` makes that file; it imports mlflow.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import SpecError, UsageError
from orchestrator.spec.load import JobFile
from orchestrator.track.base import TrackingUnavailableError
from orchestrator.track.environment import silence

_REMOTE = ("http", "https", "databricks", "postgresql", "mysql", "mssql")
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A tracking store."""

    uri: str
    """As MLflow takes it; absolute."""
    database: Path | None
    """The SQLite file; `None` for a store that others run."""
    artifact_root: Path | None
    """Folder of artifacts; `None` where the store decides."""


def embedded_store(state: Path) -> Store:
    """The store in the state folder: `mlflow.db` and `artifacts/`."""
    return _sqlite_store(state.resolve() / "mlflow.db")


def store_of(job: JobFile, *, state: Path) -> Store:
    """The store that a job file names; see `store_at`.

    Raises:
        SpecError: it cannot be used; says where it is named.
    """
    try:
        return store_at(job.spec.tracking.uri, state=state)
    except UsageError as err:
        raise SpecError([job.problem("tracking.uri", str(err))]) from err


def store_at(uri: str | None, *, state: Path) -> Store:
    """The store at an address; nothing is made yet.

    Args:
        uri: MLflow tracking URI; `None` is the embedded store.
        state: the state folder.

    Raises:
        UsageError: MLflow 3.17 cannot use such a store, or the folder of a SQLite file would have
            to be made in one that is not there.
    """
    if uri is None:
        return embedded_store(state)
    if uri.startswith(_SQLITE):
        database = Path(unquote(uri.removeprefix(_SQLITE))).resolve()
        if not database.parent.parent.is_dir():
            raise UsageError(
                f"there is no folder {database.parent.parent}, in which to make "
                f"{database.parent.name} for {database.name}; make it, or name another"
            )
        return _sqlite_store(database)
    if urlsplit(uri).scheme.split("+")[0] in _REMOTE or uri == "databricks":
        return Store(uri=uri, database=None, artifact_root=None)
    raise UsageError(
        f"{uri!r} is no tracking store; write http://host:port, "
        "sqlite:///path/mlflow.db, or null for the store in the state folder"
    )


def create_store(database: Path) -> None:
    """Make an empty MLflow database, unless it is there.

    Takes some seconds. Any number of processes may call it at once: one makes it, the others wait.
    The file appears whole, so that a process killed meanwhile leaves no half-made schema, which
    MLflow could never open again.

    Raises:
        TrackingUnavailableError: it cannot be written.
    """
    if database.exists():
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        with _locked(database.with_name(database.name + ".lock")):
            if not database.exists():
                # A folder of its own, so that a rollback journal left in it goes with it.
                workshop = database.with_name(database.name + ".partial")
                shutil.rmtree(workshop, ignore_errors=True)
                workshop.mkdir()
                _make_schema(workshop / database.name, artifact_root=database.parent / "artifacts")
                os.replace(workshop / database.name, database)
                workshop.rmdir()
    except OSError as err:
        raise TrackingUnavailableError(f"{database} cannot be created: {err}") from err


def _sqlite_store(database: Path) -> Store:
    return Store(
        uri=_sqlite_uri(database), database=database, artifact_root=database.parent / "artifacts"
    )


def _sqlite_uri(database: Path) -> str:
    # No more than must be: MLflow makes a folder of the name as it is written here.
    return _SQLITE + str(database).replace("%", "%25").replace("?", "%3F")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_schema(database: Path, *, artifact_root: Path) -> None:
    silence()
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.exc import SQLAlchemyError

    silence()
    try:
        store = SqlAlchemyStore(_sqlite_uri(database), artifact_root.as_uri())
    except (MlflowException, SQLAlchemyError) as err:
        raise TrackingUnavailableError(f"MLflow cannot create {database}: {err}") from err
    store.engine.dispose()
