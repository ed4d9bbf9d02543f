"""Reads runs and the documents they keep from MLflow, through `MlflowClient`; writes nothing there.

Imports mlflow when a reader is made, which takes seconds.
"""

import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.errors import UsageError
from orchestrator.spec.finding import show_text
from orchestrator.track.base import TrackingRefusedError, TrackingUnavailableError
from orchestrator.track.environment import mlflow_environment, silence
from orchestrator.track.mlflow import PARENT_TAG
from orchestrator.track.read import (
    ArtifactsUnreadableError,
    PastRun,
    in_order,
    unknown_experiment,
    unknown_run,
)
from orchestrator.track.store import Store

_PAGE = 1000
"""Runs a call."""
_LONGEST_CAUSE = 200


class MlflowRunReader:
    """Reads an MLflow store through `MlflowClient`."""

    def __init__(self, store: Store) -> None:
        """Import mlflow; an embedded database that is not there is not made.

        Args:
            store: where to look.

        Raises:
            UsageError: there is no MLflow database, or it is of another MLflow version.
            TrackingUnavailableError: it cannot be read.
        """
        version = None if store.database is None else _schema_version(store.database)
        silence()
        from mlflow.store.db.utils import _get_latest_schema_revision
        from mlflow.tracking.client import MlflowClient

        silence()
        # MLflow itself would bring an older database up to date.
        if version is not None and version != _get_latest_schema_revision():
            raise UsageError(
                f"{store.database} is of another MLflow version; keep a copy of it, and bring it "
                f"up to date with: mlflow db upgrade {store.uri}"
            )
        self._uri = shown_uri(store)
        self._experiments: dict[str, str] = {}
        with self._told():
            self._client = MlflowClient(tracking_uri=store.uri)

    def experiment(self, name: str) -> tuple[PastRun, ...]:
        """All runs of an experiment."""
        with self._told():
            found = self._client.get_experiment_by_name(name)
            if found is None:
                known = [one.name for one in self._pages(self._client.search_experiments)]
                raise unknown_experiment(name, known)
            if found.lifecycle_stage == "deleted":
                raise UsageError(
                    f"experiment {show_text(name)} has been deleted; bring it back with: "
                    f"mlflow experiments restore --experiment-id {found.experiment_id}"
                )
            self._experiments[found.experiment_id] = name
            return self._search([found.experiment_id])

    def run(self, run_id: str) -> PastRun:
        """One run."""
        from mlflow.exceptions import MlflowException

        with self._told():
            try:
                return self._past_run(self._client.get_run(run_id))
            except MlflowException as err:
                if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise unknown_run(run_id) from err
                raise

    def children(self, parent: PastRun) -> tuple[PastRun, ...]:
        """The runs that are parts of another."""
        with self._told():
            experiment_id = self._client.get_run(parent.run_id).info.experiment_id
            return self._search(
                [experiment_id], filter_string=f"tags.`{PARENT_TAG}` = '{parent.run_id}'"
            )

    def documents(self, run: PastRun, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the named artifacts that a run has."""
        try:
            folders = {name.rpartition("/")[0] for name in names}
            there = {
                file.path
                for folder in folders
                for file in self._client.list_artifacts(run.run_id, folder or None)
            }
            with tempfile.TemporaryDirectory() as target:
                return {
                    name: Path(
                        self._client.download_artifacts(run.run_id, name, target)
                    ).read_bytes()
                    for name in names
                    if name in there
                }
        except Exception as err:
            # Artifacts lie with whatever the store names: a disk, S3, SFTP, each with errors and
            # libraries of its own.
            raise ArtifactsUnreadableError(_cause(err)) from err

    def _search(self, experiment_ids: list[str], **search: str) -> tuple[PastRun, ...]:
        found = self._pages(self._client.search_runs, experiment_ids=experiment_ids, **search)
        return in_order(map(self._past_run, found))

    def _pages(self, search: Any, **arguments: Any) -> Iterator[Any]:
        token = None
        while True:
            page = search(**arguments, max_results=_PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _past_run(self, run: Any) -> PastRun:
        info = run.info
        if info.experiment_id not in self._experiments:
            experiment = self._client.get_experiment(info.experiment_id)
            self._experiments[info.experiment_id] = experiment.name
        return PastRun(
            run_id=info.run_id,
            name=info.run_name or "",
            experiment=self._experiments[info.experiment_id],
            status="DELETED" if info.lifecycle_stage == "deleted" else info.status,
            started_unix_s=(info.start_time or 0) / 1000,
            tags=dict(run.data.tags),
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn MLflow's errors into one line of ours."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except MlflowException as err:
            # Requests' errors are OSErrors.
            if isinstance(err.__context__, OSError):
                message = f"the tracking store at {self._uri} does not answer: {_cause(err)}"
                raise TrackingUnavailableError(message) from err
            message = f"the tracking store at {self._uri} gives no runs: {_cause(err)}"
            raise TrackingRefusedError(message) from err
        except (OSError, SQLAlchemyError) as err:
            message = f"the tracking store at {self._uri} cannot be read: {_cause(err)}"
            raise TrackingUnavailableError(message) from err


def reading_environment() -> dict[str, str]:
    """The variables MLflow reads, for a process that fetches artifacts: also no progress bars."""
    return {**mlflow_environment(), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def shown_uri(store: Store) -> str:
    """Where a store is, in words that may be kept: without a password."""
    if store.database is not None:
        return str(store.database)
    parts = urlsplit(store.uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _schema_version(database: Path) -> str:
    """Which version of MLflow's tables a SQLite file has, without touching it."""
    if not database.is_file():
        raise UsageError(
            f"there is no tracking store {database} yet; launch a job first, or name another "
            "with --home or --uri"
        )
    try:
        # Escaped as a URI, in which ? and # would end the path.
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            row = opened.execute("SELECT version_num FROM alembic_version").fetchone()
            opened.execute("SELECT 1 FROM experiments LIMIT 1")
    except sqlite3.Error as err:
        if isinstance(err, sqlite3.OperationalError) and "no such table" not in str(err):
            raise TrackingUnavailableError(f"{database} cannot be read: {err}") from err
        raise UsageError(f"{database} is no MLflow database; name another with --uri") from err
    return "" if row is None else str(row[0])


def _cause(err: BaseException) -> str:
    """What a library says went wrong, as short as it can be told."""
    text = str(err).strip()
    if answered := re.search(r"failed with error code (\d+) ", text):
        return f"it answers with HTTP code {answered.group(1)}; is it an MLflow server?"
    if named := re.search(r"\[Errno -?\d+\] ([^\"'\n]+?)[\"')]*(?:: |$|[\"'\n])", text):
        return named.group(1)
    first_line = text.partition("\n")[0] or type(err).__name__
    return first_line if len(first_line) <= _LONGEST_CAUSE else f"{first_line[:_LONGEST_CAUSE]}..."
