"""MLflow as a tracking store, through `MlflowClient` alone: the fluent API keeps global state.

Imports mlflow when a tracker is made, which takes seconds: make it where nobody waits.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import (
    COMPARISON,
    KEY_TAG,
    KIND_TAG,
    RunStart,
    RunStatus,
    TrackedRun,
    TrackingRefusedError,
    TrackingUnavailableError,
)
from orchestrator.track.comparison_view import comparison_view, missing_colours
from orchestrator.track.environment import silence
from orchestrator.track.names import MAX_PARAM_VALUE, MAX_TAG_VALUE, entity_name, short
from orchestrator.track.store import Store, create_store
from orchestrator.track.views import View, experiment_views, run_views

__all__ = ["KEY_TAG", "PARENT_TAG", "MlflowTracker"]

MAX_METRICS = 1000
MAX_PARAMS = 100
MAX_TAGS = 100
MAX_CHILDREN = 2000
"""Strategies of a comparison, the most that a job file may ask for."""
PARENT_TAG = "mlflow.parentRunId"
COLOUR_TAG = "mlflow.runColor"
_RETRY = frozenset(
    {
        "INTERNAL_ERROR",
        "TEMPORARILY_UNAVAILABLE",
        "REQUEST_LIMIT_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "ABORTED",
        "CANCELLED",
    }
)

# Without it the page guesses what kind of experiment this is, and opens on pages for prompts.
# Source: mlflow 3.17.2, the page's own `ExperimentKind`.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

log = logging.getLogger(__name__)


class MlflowTracker:
    """Writes runs to an MLflow store. Not for two threads at once."""

    def __init__(self, store: Store) -> None:
        """Import mlflow and make the embedded database if it is missing.

        Args:
            store: where to write.

        Raises:
            TrackingUnavailableError: the database cannot be made.
            TrackingRefusedError: it is of another MLflow version.
        """
        if store.database is not None:
            create_store(store.database)
        silence()
        from mlflow.tracking.client import MlflowClient

        silence()
        self._artifact_root = store.artifact_root
        with _translated():
            self._client = MlflowClient(tracking_uri=store.uri)

    def start(self, run: RunStart) -> TrackedRun:
        """Create the run with its parameters and tags, or find the one with its key."""
        with _translated():
            experiment_id = self._experiment(run.experiment)
            tags = {entity_name(key): value for key, value in run.tags.items()}
            if run.parent_key is not None:
                tags[PARENT_TAG] = self._parent(run.parent_key, experiment_id)
            found = self._with_key(run.key, experiment_id)
            created = found or self._create(run, experiment_id)
            if created.info.status != "RUNNING":
                # It had ended, and goes on.
                self._client.update_run(created.info.run_id, status="RUNNING")
            # What the run has is left alone: MLflow refuses to change a parameter.
            params = {entity_name(key): value for key, value in run.params.items()}
            missing = {k: v for k, v in params.items() if k not in created.data.params}
            self._log_settings(created.info.run_id, missing, tags)
        return TrackedRun(experiment_id=experiment_id, run_id=created.info.run_id)

    def log_points(self, run: TrackedRun, points: Sequence[MetricPoint]) -> None:
        """Add points; MLflow keeps equal ones once."""
        from mlflow.entities import Metric

        metrics = [Metric(entity_name(p.key), p.value, p.time_ms, p.step) for p in points]
        with _translated():
            for start in range(0, len(metrics), MAX_METRICS):
                batch = metrics[start : start + MAX_METRICS]
                self._client.log_batch(run.run_id, metrics=batch, synchronous=True)

    def log_file(self, run: TrackedRun, path: Path, *, name: str) -> None:
        """Keep a file's content as artifact `name`."""
        target = PurePosixPath(name)
        if target.name != path.name:
            raise ValueError(f"MLflow keeps file names: {path.name} cannot become {target.name}")
        folder = None if target.parent == PurePosixPath() else str(target.parent)
        with _translated():
            self._client.log_artifact(run.run_id, str(path), folder)

    def finish(self, run: TrackedRun, *, status: RunStatus, end_time_ms: int) -> None:
        """Close the run, and lay out the charts that its links open."""
        with _translated():
            for view in self._views(run, end_time_ms=end_time_ms):
                self._client.set_experiment_tag(run.experiment_id, view.tag_key, view.tag_value)
            self._client.set_terminated(run.run_id, status=status, end_time=end_time_ms)

    def _views(self, run: TrackedRun, *, end_time_ms: int) -> list[View]:
        data = self._client.get_run(run.run_id).data
        if data.tags.get(KIND_TAG) != COMPARISON:
            keys = data.metrics
            return [
                *run_views(keys, run_id=run.run_id),
                *experiment_views(keys, now_ms=end_time_ms),
            ]
        children = self._client.search_runs(
            [run.experiment_id],
            filter_string=f"tags.`{PARENT_TAG}` = '{run.run_id}'",
            max_results=MAX_CHILDREN,
            order_by=[f"tags.`{KEY_TAG}` ASC"],
        )
        drawn = [child for child in children if child.info.status != "KILLED"]
        colours = {child.info.run_id: child.data.tags.get(COLOUR_TAG) for child in drawn}
        for child_id, colour in missing_colours(colours).items():
            self._client.set_tag(child_id, COLOUR_TAG, colour)
        keys = {key for child in children for key in child.data.metrics}
        return [comparison_view(keys, run_id=run.run_id)]

    def _with_key(self, key: str, experiment_id: str) -> Any:
        """The run with this key of ours; `None` where there is none."""
        found = self._client.search_runs(
            [experiment_id], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1
        )
        return found[0] if found else None

    def _parent(self, key: str, experiment_id: str) -> str:
        """The id of the run that another is a part of."""
        parent = self._with_key(key, experiment_id)
        if parent is None:
            raise TrackingUnavailableError(f"run {key}, which it is a part of, is not there yet")
        run_id: str = parent.info.run_id
        return run_id

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                created: str = self._client.create_experiment(
                    name,
                    artifact_location=self._artifact_location(name),
                    tags=_EXPERIMENT_TAGS,
                )
            except MlflowException as err:
                # Another launch may have been quicker.
                if err.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)
            else:
                return created
        if experiment.lifecycle_stage == "deleted":
            log.warning("experiment %s had been deleted and is restored", name)
            self._client.restore_experiment(experiment.experiment_id)
        found: str = experiment.experiment_id
        return found

    def _artifact_location(self, experiment: str) -> str | None:
        if self._artifact_root is None:
            return None
        return (self._artifact_root / entity_name(experiment).replace("/", "_")).as_uri()

    def _create(self, run: RunStart, experiment_id: str) -> Any:
        return self._client.create_run(
            experiment_id,
            start_time=run.start_time_ms,
            tags={KEY_TAG: run.key},
            run_name=run.name,
        )

    def _log_settings(
        self, run_id: str, params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        all_params = [
            Param(key, short(value, limit=MAX_PARAM_VALUE)) for key, value in params.items()
        ]
        all_tags = [RunTag(key, short(value, limit=MAX_TAG_VALUE)) for key, value in tags.items()]
        for start in range(0, len(all_params), MAX_PARAMS):
            params_batch = all_params[start : start + MAX_PARAMS]
            self._client.log_batch(run_id, params=params_batch, synchronous=True)
        for start in range(0, len(all_tags), MAX_TAGS):
            tags_batch = all_tags[start : start + MAX_TAGS]
            self._client.log_batch(run_id, tags=tags_batch, synchronous=True)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn MLflow's errors into ours: those that may pass, and those that stay."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as err:
        first_line = str(err).strip().partition("\n")[0]
        if err.error_code in _RETRY and "database schema" not in first_line:
            raise TrackingUnavailableError(first_line) from err
        raise TrackingRefusedError(first_line) from err
    except (OSError, SQLAlchemyError) as err:
        # The network's errors are OSErrors too.
        raise TrackingUnavailableError(str(err)) from err
