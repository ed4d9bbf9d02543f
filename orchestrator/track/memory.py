"""A tracking store in memory: the twin of MLflow, for tests and for runs that keep nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import (
    RunStart,
    RunStatus,
    TrackedRun,
    TrackingRefusedError,
    TrackingUnavailableError,
)


@dataclass(slots=True, kw_only=True)
class StoredRun:
    """What the twin holds of one run."""

    start: RunStart
    points: set[MetricPoint] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    parent_id: str | None = None
    status: RunStatus | None = None
    """`None` while it runs."""
    end_time_ms: int | None = None


class InMemoryTracker:
    """Keeps runs in a dictionary; can be made unavailable to try an outage."""

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        """run id -> run."""
        self.available = True

    def start(self, run: RunStart) -> TrackedRun:
        """Create the run, or find the one with its key."""
        self._check_available()
        parent_id = None if run.parent_key is None else self._with_key(run.parent_key, run)
        if run.parent_key is not None and parent_id is None:
            raise TrackingUnavailableError(f"run {run.parent_key} is not there yet")
        run_id = self._with_key(run.key, run) or f"run-{len(self.runs) + 1}"
        stored = self.runs.setdefault(run_id, StoredRun(start=run))
        stored.parent_id = parent_id
        stored.status, stored.end_time_ms = None, None
        return TrackedRun(experiment_id=run.experiment, run_id=run_id)

    def log_points(self, run: TrackedRun, points: Sequence[MetricPoint]) -> None:
        """Add points."""
        self._stored(run).points.update(points)

    def log_file(self, run: TrackedRun, path: Path, *, name: str) -> None:
        """Keep a file's content."""
        self._stored(run).files[name] = path.read_bytes()

    def finish(self, run: TrackedRun, *, status: RunStatus, end_time_ms: int) -> None:
        """Close the run."""
        stored = self._stored(run)
        stored.status = status
        stored.end_time_ms = end_time_ms

    def _with_key(self, key: str, run: RunStart) -> str | None:
        """The id of the run with a key, in the experiment of another."""
        for run_id, stored in self.runs.items():
            if (stored.start.key, stored.start.experiment) == (key, run.experiment):
                return run_id
        return None

    def _stored(self, run: TrackedRun) -> StoredRun:
        self._check_available()
        if run.run_id not in self.runs:
            raise TrackingRefusedError(f"there is no run {run.run_id}")
        return self.runs[run.run_id]

    def _check_available(self) -> None:
        if not self.available:
            raise TrackingUnavailableError("the store in memory is switched off")
