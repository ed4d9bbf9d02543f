"""One strategy under way in a comparison: what is done of it, what became of it.

All of it lies in the strategy's run folder, from where a later command goes on:

    records.jsonl, logs/            the first round, which is the strategy's run
    rounds/2/records.jsonl, logs/   later rounds, which are for the speed alone
    artifacts/summary.json          once it is settled
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.compare.entry import (
    ENVIRONMENT,
    PLAN,
    SUMMARY,
    THROUGHPUT,
    Entry,
    entry_of,
)
from orchestrator.launch.comparison.folder import ComparisonFolder
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.comparison.told import began_unix_s, is_whole, tally_of
from orchestrator.launch.failure import Failure
from orchestrator.launch.open_run import (
    OpenRun,
    Setting,
    note_failure,
    open_run,
    run_start,
    seal,
    settle,
)
from orchestrator.measure.run_record import Outcome, RunRecord
from orchestrator.measure.sample import Record
from orchestrator.measure.summary import MAX_SAMPLES, RunTally
from orchestrator.track.base import RunStart
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import records_in

FIRST_ROUND = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What all strategies of a comparison share."""

    folder: ComparisonFolder
    setting: Setting
    n_rounds: int
    n_strategies: int


class Contestant:
    """One strategy.

    Args:
        planned: what it is.
        index: its number in the comparison, from 0.
        contest: what it shares with the others.
    """

    def __init__(self, planned: PlannedStrategy, *, index: int, contest: Contest) -> None:
        self.planned = planned
        self.index = index
        self._contest = contest
        self.rounds: dict[int, tuple[float, ...]] = {}
        """Round -> samples/s of each measured step, of the rounds that are whole."""
        self.record: RunRecord | None = None
        """What it came to; `None` until it is settled."""
        self._sealed = False
        self._run: OpenRun | None = None
        attempts = contest.folder.attempts(index, planned.name)
        self.path = attempts[-1] if attempts else contest.folder.next_attempt(index, planned.name)

    @property
    def name(self) -> str:
        """The strategy's."""
        return self.planned.name

    @property
    def is_settled(self) -> bool:
        """Whether its outcome stands."""
        return self.record is not None

    @property
    def is_begun(self) -> bool:
        """Whether it has told anything, or has its outcome."""
        return self._run is not None

    @property
    def has_ended_well(self) -> bool:
        """Whether it ran to its end."""
        return self.record is not None and self.record.outcome == "ok"

    @property
    def is_complete(self) -> bool:
        """Whether nothing more of it is to be run: it failed, or has all its rounds."""
        if self.record is None or self.record.outcome == "interrupted":
            return False
        return self.record.outcome != "ok" or len(self.rounds) == self._contest.n_rounds

    @property
    def has_failed(self) -> bool:
        """Whether it failed for another reason than that it does not fit."""
        return self.record is not None and self.record.outcome in ("failed", "diverged")

    @property
    def outbox(self) -> Outbox:
        """What the tracking store is to get of it."""
        return Outbox(self.path)

    def missing_rounds(self) -> list[int]:
        """The rounds that are not there yet; none once it is settled."""
        if self.is_settled:
            return []
        return [n for n in range(FIRST_ROUND, self._contest.n_rounds + 1) if n not in self.rounds]

    def round_folder(self, number: int) -> Path:
        """Where the records and logs of a round lie."""
        return self.path if number == FIRST_ROUND else self.path / "rounds" / str(number)

    def take_up(self) -> Outbox | None:
        """Take over what an earlier command has left of it, and begin anew what it cannot use.

        Returns:
            The outbox of an attempt that is given up, closed: the store is to hear of that.
        """
        if not (self.path / "start.json").is_file():
            return None
        summary = _document(self.path, SUMMARY)
        outcome = None if summary is None else summary["outcome"]
        self._read_rounds()
        if outcome in ("oom", "failed", "diverged", "infeasible") or not self.missing_rounds():
            self._reopen()
            if outcome == "infeasible" and self.planned.infeasible is None:
                return self._give_up()
            if summary is not None:
                self.record = self._entry().record
                self._sealed = self.outbox.finished() is not None
            return None
        if FIRST_ROUND in self.rounds:
            self.outbox.reopen()
            # What it came to with fewer rounds stands no more.
            (self.outbox.artifacts / SUMMARY).unlink(missing_ok=True)
            self._reopen()
            return None
        return self._give_up()

    def begin(self, first: Record | None = None) -> Outbox:
        """Make its run folder, now that its ranks begin to tell.

        Args:
            first: what they told first, which says when its turn began.
        """
        start = run_start(
            self.planned.plan,
            key=self._key,
            job_path=self.planned.job.path,
            setting=self._contest.setting,
            started_unix_s=began_unix_s(first),
        )
        self._run = open_run(
            self.planned.plan,
            self.planned.job,
            folder=self.path,
            start=self._as_child(start),
            setting=self._contest.setting,
            max_samples=self._max_samples,
        )
        return self.outbox

    def take(self, record: Record) -> None:
        """Take a record of its first round."""
        assert self._run is not None
        self._run.tally.take(record)

    def summed_up(self) -> RunRecord:
        """What its first round came to so far."""
        assert self._run is not None
        return self._run.tally.record(name=self.name, outcome="ok", started_unix_s=None)

    def round_is_whole(self, number: int, tally: RunTally | None) -> None:
        """Note that every rank is done with a round.

        Args:
            number: which one.
            tally: of a later round; the first one is known.
        """
        assert self._run is not None
        known = self._run.tally if tally is None else tally
        self.rounds[number] = tuple(known.samples_per_s())

    def settle(self, outcome: Outcome, failure: Failure | None) -> RunRecord:
        """Sum it up and keep that; its ranks tell nothing more."""
        if self._run is None:
            self.begin()
        assert self._run is not None
        if failure is not None:
            self._run.tally.take(note_failure(self._run, failure))
        rounds = [self.rounds[n] for n in sorted(self.rounds)]
        settled = settle(
            self._run,
            outcome,
            failure,
            home=self._contest.setting.home,
            rounds=rounds or None,
        )
        self.record = settled.record
        return self.record

    def seal(self, *, plots: bool) -> None:
        """Close its outbox; nothing comes after."""
        if self._sealed or self._run is None or self.record is None:
            return
        seal(self._run, self.record, plots=plots)
        self._sealed = True

    def entry(self) -> Entry | None:
        """What it came to, from the documents that it keeps; `None` before it is settled."""
        return self._entry() if self.is_settled else None

    def _entry(self) -> Entry:
        plan, summary = _document(self.path, PLAN), _document(self.path, SUMMARY)
        assert plan is not None
        assert summary is not None
        tracked = self.outbox.delivered().run
        return entry_of(
            self.name,
            plan=plan,
            summary={**summary, "run_id": None if tracked is None else tracked.run_id},
            throughput=_document(self.path, THROUGHPUT),
            environment=_document(self.path, ENVIRONMENT),
            user=self._contest.setting.user,
        )

    @property
    def _key(self) -> str:
        return f"{self._contest.folder.key}-{self.path.name}"[:250]

    @property
    def _max_samples(self) -> int:
        return max(1000, MAX_SAMPLES // self._contest.n_strategies)

    def _as_child(self, start: RunStart) -> RunStart:
        return replace(start, name=self.name, parent_key=self._contest.folder.key)

    def _read_rounds(self) -> None:
        for number in range(FIRST_ROUND, self._contest.n_rounds + 1):
            folder = self.round_folder(number)
            if is_whole(folder):
                self.rounds[number] = tuple(tally_of(folder).samples_per_s())

    def _reopen(self) -> None:
        outbox = self.outbox
        tally = RunTally(max_samples=self._max_samples)
        for record in records_in(outbox.spool_path) if outbox.spool_path.is_file() else ():
            tally.take(record)
        self._run = OpenRun(
            plan=self.planned.plan,
            outbox=outbox,
            tally=tally,
            started_unix_s=outbox.start().start_time_ms / 1000,
        )

    def _give_up(self) -> Outbox:
        given_up = self.outbox
        if given_up.finished() is None:
            given_up.finish(status="KILLED", end_time_ms=int(time.time() * 1000))
        self.path = self._contest.folder.next_attempt(self.index, self.name)
        self.rounds.clear()
        self._run = None
        return given_up


def _document(path: Path, name: str) -> dict[str, Any] | None:
    """A run's document; `None` where it kept none, or only half of it."""
    try:
        values: dict[str, Any] = json.loads((path / "artifacts" / name).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return values
