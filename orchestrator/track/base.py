"""What every tracking store can do, and what a run is called there. Touches nothing outside."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from orchestrator.errors import OrchestratorError
from orchestrator.measure.points import MetricPoint
from orchestrator.measure.run_record import Outcome

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,249}")


class TrackingUnavailableError(OrchestratorError):
    """The store cannot be reached now; trying again later may help."""


class TrackingRefusedError(OrchestratorError):
    """The store said no; trying the same again does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStart:
    """What is known of a run when it starts."""

    key: str
    """Ours, unique; a store that has a run of this key goes on with it."""
    experiment: str
    name: str
    start_time_ms: int
    """Milliseconds since 1970."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """`mlflow.user` names who ran it."""
    parent_key: str | None = None
    """Key of the run that this one is a part of, in the same experiment; that one starts first."""

    def __post_init__(self) -> None:
        """Refuse a key that stores could not search for."""
        for key in (self.key, self.parent_key):
            if key is not None and not _KEY.fullmatch(key):
                raise ValueError(f"run key {key!r} is not letters, digits and . _ -")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `RunStart(**values)` reads them back."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """Where a run lies in its store."""

    experiment_id: str
    run_id: str


class Tracker(Protocol):
    """A tracking store as its one writer sees it. Saying the same twice changes nothing.

    Every method raises `TrackingUnavailableError` or `TrackingRefusedError`, and nothing else.
    """

    def start(self, run: RunStart) -> TrackedRun:
        """Create the run with its parameters and tags, or find the one with its key."""

    def log_points(self, run: TrackedRun, points: Sequence[MetricPoint]) -> None:
        """Add points; those that are there already stay single."""

    def log_file(self, run: TrackedRun, path: Path, *, name: str) -> None:
        """Keep a file's content as artifact `name`, a relative path with slashes."""

    def finish(self, run: TrackedRun, *, status: RunStatus, end_time_ms: int) -> None:
        """Close the run; later points are still taken."""


def status_of(outcome: Outcome) -> RunStatus:
    """How a store calls an outcome."""
    if outcome == "ok":
        return "FINISHED"
    return "KILLED" if outcome == "interrupted" else "FAILED"


KEY_TAG = "orchestrator.run_key"
"""What a store keeps a run's key as."""
KIND_TAG = "orchestrator.kind"
COMPARISON = "comparison"
"""What a run is tagged with that stands for a comparison; its strategies are its children."""


def run_link(base_url: str, run: TrackedRun) -> str:
    """The address of a run's page on an MLflow server, seen as training and not as prompts."""
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
    return f"{base_url.rstrip('/')}/{page}"
