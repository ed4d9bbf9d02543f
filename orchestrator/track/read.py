"""Runs that are already in a tracking store, as one sees them who looks for them there.

The twin of MLflow is here too; MLflow itself is read in `mlflow_read`. Touches nothing outside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.spec.finding import did_you_mean, show_text
from orchestrator.track.base import COMPARISON, KIND_TAG
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.mlflow import KEY_TAG, PARENT_TAG

_MOST_NAMED = 8
"""Experiments that are named where the one asked for is not there."""
_OVER = frozenset({"FINISHED", "FAILED", "KILLED"})


class ArtifactsUnreadableError(OrchestratorError):
    """What a run keeps cannot be fetched from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """A run as its store has it."""

    run_id: str
    name: str
    experiment: str
    status: str
    """As MLflow calls it: RUNNING, SCHEDULED, FINISHED, FAILED, KILLED; or DELETED."""
    started_unix_s: float
    tags: Mapping[str, str]

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _OVER

    @property
    def is_comparison(self) -> bool:
        """Whether it stands for a comparison, whose strategies are its children."""
        return self.tags.get(KIND_TAG) == COMPARISON

    @property
    def is_ours(self) -> bool:
        """Whether this program made it."""
        return KEY_TAG in self.tags

    @property
    def parent_run_id(self) -> str | None:
        """The run that it is a part of."""
        return self.tags.get(PARENT_TAG)

    @property
    def user(self) -> str | None:
        """Who ran it."""
        return self.tags.get("mlflow.user") or None


class RunReader(Protocol):
    """A tracking store as one sees it who looks for runs.

    Every method also raises `TrackingUnavailableError` or `TrackingRefusedError`.
    """

    def experiment(self, name: str) -> tuple[PastRun, ...]:
        """All runs of an experiment, the earliest first.

        Raises:
            UsageError: there is no such experiment.
        """

    def run(self, run_id: str) -> PastRun:
        """One run.

        Raises:
            UsageError: there is no such run.
        """

    def children(self, parent: PastRun) -> tuple[PastRun, ...]:
        """The runs that are parts of another, the earliest first."""

    def documents(self, run: PastRun, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the named artifacts that a run has.

        Raises:
            ArtifactsUnreadableError: they cannot be fetched from here.
        """


class InMemoryRunReader:
    """Reads what a tracker in memory holds: the twin of MLflow."""

    def __init__(self, tracker: InMemoryTracker) -> None:
        self._runs = tracker.runs

    def experiment(self, name: str) -> tuple[PastRun, ...]:
        """All runs of an experiment."""
        experiments = sorted({stored.start.experiment for stored in self._runs.values()})
        if name not in experiments:
            raise unknown_experiment(name, experiments)
        return in_order(run for run in map(self.run, self._runs) if run.experiment == name)

    def run(self, run_id: str) -> PastRun:
        """One run."""
        if run_id not in self._runs:
            raise unknown_run(run_id)
        stored = self._runs[run_id]
        start = stored.start
        tags = {**start.tags, KEY_TAG: start.key}
        for other_id, other in self._runs.items():
            if other.start.key == start.parent_key:
                tags[PARENT_TAG] = other_id
        return PastRun(
            run_id=run_id,
            name=start.name,
            experiment=start.experiment,
            status=stored.status or "RUNNING",
            started_unix_s=start.start_time_ms / 1000,
            tags=tags,
        )

    def children(self, parent: PastRun) -> tuple[PastRun, ...]:
        """The runs that are parts of another."""
        runs = map(self.run, self._runs)
        return in_order(run for run in runs if run.parent_run_id == parent.run_id)

    def documents(self, run: PastRun, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the named artifacts that a run has."""
        files = self._runs[run.run_id].files
        return {name: files[name] for name in names if name in files}


def unknown_experiment(name: str, known: Sequence[str]) -> UsageError:
    """Say that there is no experiment of a name, and which there are."""
    names = [one for one in known if one != "Default"]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    there = f"there are {', '.join(names[:_MOST_NAMED])}{more}" if names else "there is none yet"
    return UsageError(f"no experiment {show_text(name)}; {did_you_mean(name, names)}{there}")


def unknown_run(run_id: str) -> UsageError:
    """Say that there is no run of an id."""
    return UsageError(
        f"no run {show_text(run_id)}; give the id that MLflow's page shows, 32 letters and digits"
    )


def in_order(runs: Iterable[PastRun]) -> tuple[PastRun, ...]:
    """Sort runs by their start."""
    return tuple(sorted(runs, key=lambda run: (run.started_unix_s, run.run_id)))
