"""Runs that are already in a tracking store, as entries of a comparison.

Which of them are taken, what is said of those that are not, what they are called, and what a
comparison that they were launched in has told of itself.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.compare.entry import ENVIRONMENT, PLAN, SUMMARY, THROUGHPUT, Entry, entry_of
from orchestrator.compare.ranking import Ranking
from orchestrator.compare.run_names import RunToName, run_names
from orchestrator.errors import UsageError
from orchestrator.launch.comparison.report import rank_entries
from orchestrator.launch.past_comparison import PastComparison, comparisons_of, in_order
from orchestrator.spec.finding import did_you_mean, show_text
from orchestrator.track.read import ArtifactsUnreadableError, PastRun, RunReader

_MOST_NAMED = 12

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that was asked for and cannot be held against others."""

    run_id: str
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """As `report --json` prints it."""
        return {"run_id": self.run_id, "name": self.name, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRuns:
    """Runs that can be held against each other."""

    runs: tuple[PastRun, ...]
    entries: tuple[Entry, ...]
    """One a run, in the same order, each with a name of its own."""
    comparisons: tuple[PastComparison, ...]
    """Those that any of them was launched in."""
    left_out: tuple[LeftOut, ...]

    @property
    def launched_together(self) -> PastComparison | None:
        """The comparison that all of them were launched in."""
        parents = {run.parent_run_id for run in self.runs}
        alone = [one for one in self.comparisons if parents == {one.run_id}]
        return alone[0] if alone else None

    @property
    def name(self) -> str:
        """What a report on them is called."""
        together = self.launched_together
        experiments = dict.fromkeys(run.experiment for run in self.runs)
        return _listed(tuple(experiments), most=2) if together is None else together.name

    @property
    def users(self) -> tuple[str, ...]:
        """Who ran them."""
        return tuple(dict.fromkeys(entry.user for entry in self.entries if entry.user))

    def entry_name(self, baseline: str | None) -> str | None:
        """The entry that the others are held against.

        Args:
            baseline: what the user calls it; `None`: that of the comparison they were launched in,
                and where there is none or more than one the first that ran to its end.

        Raises:
            UsageError: no entry is called so.
        """
        names = [entry.name for entry in self.entries]
        if baseline is None:
            return self._own_baseline(self.comparisons[0]) if len(self.comparisons) == 1 else None
        if baseline not in names:
            raise UsageError(
                f"--baseline {baseline}: no run is called so; {did_you_mean(baseline, names)}"
                f"there are {_listed(names, most=_MOST_NAMED)}"
            )
        return baseline

    def controls(self, baseline: str | None) -> Mapping[str, tuple[float, ...]]:
        """The controls of the entry that the others are held against; empty where it has none.

        Args:
            baseline: name of the entry; `None`, or one that did not run to its end: the first that
                did.
        """
        ok = [entry.name for entry in self.entries if entry.is_ok]
        held_against = baseline if baseline in ok else next(iter(ok), None)
        for one in self.comparisons:
            if held_against is not None and self._own_baseline(one) == held_against:
                return one.controls
        return {}

    def _own_baseline(self, comparison: PastComparison) -> str | None:
        """What the baseline of a comparison is called here; `None` where it is not among these."""
        for run, entry in zip(self.runs, self.entries, strict=True):
            if run.parent_run_id == comparison.run_id and run.name == comparison.baseline:
                return entry.name
        return None


def past_runs(reader: RunReader, *, experiment: str | None, run_ids: Sequence[str]) -> PastRuns:
    """Find runs and read what they keep.

    Args:
        reader: the store they are in.
        experiment: take all runs of it that are over; `None`: of none.
        run_ids: take these too; of a comparison its strategies.

    Raises:
        UsageError: there is no such experiment or run, or none that can be taken.
        TrackingUnavailableError: the store does not answer.
        TrackingRefusedError: the store does not give them.
    """
    asked = {} if experiment is None else {run.run_id: run for run in reader.experiment(experiment)}
    parents = {run_id: run for run_id, run in asked.items() if run.is_comparison}
    for run in map(reader.run, run_ids):
        if run.is_comparison:
            parents[run.run_id] = run
        of_it = reader.children(run) if run.is_comparison else (run,)
        asked |= {one.run_id: one for one in of_it}
    taken, left_out = _taken(
        [run for run in asked.values() if not run.is_comparison], parents, reader
    )
    if not taken:
        raise UsageError(_nothing(experiment, parents=parents, left_out=left_out))
    comparisons = comparisons_of([asked[run_id] for run_id in taken], parents, reader)
    runs = in_order([asked[run_id] for run_id in taken], comparisons)
    return PastRuns(
        runs=runs,
        entries=_named(runs, [taken[run.run_id] for run in runs]),
        comparisons=comparisons,
        left_out=left_out,
    )


def ranked(past: PastRuns, *, baseline: str | None) -> Ranking:
    """Judge runs as the comparison did that they were launched in, if it is one.

    Args:
        past: the runs.
        baseline: name of the entry that the others are held against; see `PastRuns.entry_name`.
    """
    together = past.launched_together
    return rank_entries(
        past.entries,
        baseline=baseline,
        controls=past.controls(baseline),
        varied=() if together is None else together.varied,
    )


def _taken(
    runs: Sequence[PastRun], parents: Mapping[str, PastRun], reader: RunReader
) -> tuple[dict[str, Entry], tuple[LeftOut, ...]]:
    """What can be read of runs, by id, and what is said of the others."""
    in_time = sorted(runs, key=lambda run: run.started_unix_s)
    latest = {(run.parent_run_id, run.name): run for run in in_time}
    found = {
        run.run_id: "was begun anew in the same comparison"
        if run.parent_run_id in parents and latest[run.parent_run_id, run.name] != run
        else _entry(run, reader)
        for run in runs
    }
    return (
        {run_id: one for run_id, one in found.items() if isinstance(one, Entry)},
        tuple(
            LeftOut(run_id=run.run_id, name=run.name, reason=reason)
            for run in runs
            if isinstance(reason := found[run.run_id], str)
        ),
    )


def _nothing(
    experiment: str | None, *, parents: Mapping[str, PastRun], left_out: Sequence[LeftOut]
) -> str:
    """Why there is nothing to report."""
    if left_out:
        told = [f"{one.name} {one.run_id} {one.reason}" for one in left_out]
        return f"no run that can be reported: {_listed(told, most=3)}"
    if parents or experiment is None:
        return f"no strategy of {_listed([run.name for run in parents.values()], most=3)} has begun"
    return f"experiment {show_text(experiment)} has no runs yet; launch a job first"


def _entry(run: PastRun, reader: RunReader) -> Entry | str:
    """What a run came to, or why that cannot be told."""
    if not run.is_over:
        gone = run.status == "DELETED"
        return "has been deleted" if gone else "has not ended, by what MLflow knows"
    try:
        kept = reader.documents(run, (PLAN, SUMMARY, THROUGHPUT, ENVIRONMENT))
    except ArtifactsUnreadableError as err:
        return f"its artifacts cannot be read from here: {err}"
    if PLAN not in kept:
        return "its artifacts are not there" if run.is_ours else "was not made by this program"
    if SUMMARY not in kept:
        return "ended before it was summed up"
    try:
        documents = {name: json.loads(content) for name, content in kept.items()}
        return entry_of(
            run.name,
            plan=documents[PLAN],
            summary={**documents[SUMMARY], "run_id": run.run_id},
            throughput=documents.get(THROUGHPUT),
            environment=documents.get(ENVIRONMENT),
            user=run.user,
        )
    except (ValueError, TypeError, AttributeError) as err:
        log.debug("run %s", run.run_id, exc_info=err)
        return "its documents are damaged, or of another version of this program"


def _named(runs: Sequence[PastRun], entries: Sequence[Entry]) -> tuple[Entry, ...]:
    names = run_names(
        [
            RunToName(
                run_id=run.run_id, name=run.name, entry=entry, started_unix_s=run.started_unix_s
            )
            for run, entry in zip(runs, entries, strict=True)
        ]
    )
    return tuple(replace(entry, name=name) for entry, name in zip(entries, names, strict=True))


def _listed(names: Sequence[str], *, most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
