"""A comparison around ranks of the test's own, which tell what they are told to, or fail."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.launch.base import Launch
from orchestrator.launch.comparison.comparison import Comparison, Watcher
from orchestrator.launch.comparison.contestant import Contestant
from orchestrator.launch.comparison.folder import (
    ComparisonFolder,
    fingerprint,
    new_folder,
    unfinished,
)
from orchestrator.launch.comparison.planned import PlannedStrategy, plan_strategies
from orchestrator.launch.comparison.record import Compared
from orchestrator.launch.comparison.stint import Stint
from orchestrator.launch.failure import Failure, RankError, RunError, judge
from orchestrator.launch.home import open_home
from orchestrator.launch.open_run import Setting
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import Record
from orchestrator.spec.load import JobFile, load_job
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.spool import SpoolWriter
from tests import small_jobs
from tests.launch import records

End = BaseException | Callable[[Launch], None]


def turn_of(launch: Launch) -> str:
    """`zero0` is a strategy's first round, `zero0/2` its second, `control fp32-0` a control."""
    folder = launch.spool_path.parent
    if folder.parent.name == "controls":
        return f"control {folder.name}"
    if folder.parent.name == "rounds":
        return f"{folder.parents[1].name[3:]}/{folder.name}"
    return folder.name[3:]


class Ranks:
    """A launcher that writes what ranks would tell of every turn, unless it ends otherwise.

    Args:
        ends: turn -> what it ends with after two steps: it is raised, or called.
    """

    def __init__(self, ends: Mapping[str, End] | None = None) -> None:
        self.ends = dict(ends or {})
        self.groups: list[list[str]] = []
        """The turns of each group that were begun."""
        self.n_renewed = 0
        self.is_aborted = False

    @property
    def turns(self) -> list[str]:
        """The turns that were begun."""
        return [turn for group in self.groups for turn in group]

    def run(self, launches: Sequence[Launch]) -> None:
        self.is_aborted = False
        self.groups.append([])
        for launch in launches:
            turn = turn_of(launch)
            self.groups[-1].append(turn)
            end = self.ends.get(turn)
            tell(launch, n_steps=2 if end is not None else None)
            if isinstance(end, BaseException):
                raise end
            if end is not None:
                end(launch)

    compiles = False

    def abort(self) -> None:
        self.is_aborted = True

    def renew(self) -> None:
        self.n_renewed += 1

    def hang(self, _launch: Launch) -> None:
        """Tell nothing more until somebody ends it."""
        while not self.is_aborted:
            time.sleep(0.01)
        raise RunError(
            Failure(outcome="failed", rank=None, step=None, message="aborted", details="")
        )


def tell(launch: Launch, *, n_steps: int | None = None) -> None:
    """Write what the ranks of a launch would.

    Args:
        launch: whose.
        n_steps: after which they stop in the middle; `None`: they come to their end.
    """
    n_ranks = launch.plan.resources.workers
    total_steps = launch.extent.n_steps or launch.plan.spec.training.steps or 1
    launch.log_folder.mkdir(parents=True, exist_ok=True)
    told: list[Record] = [
        records.facts(rank, world_size=n_ranks, total_steps=total_steps) for rank in range(n_ranks)
    ]
    told += [
        records.sample(rank, step=step, loss=4.0 / step)
        for step in range(1, (n_steps or total_steps) + 1)
        for rank in range(n_ranks)
    ]
    if n_steps is None:
        told += [records.done(rank) for rank in range(n_ranks)]
    with SpoolWriter(launch.spool_path) as spool:
        for record in told:
            spool.append(record)
    for rank in range(n_ranks):
        (launch.log_folder / f"rank_{rank:02d}.log").write_text("last words")


def failing(kind: str = "ValueError", message: str = "mine", *, rank: int = 1) -> RunError:
    """What a launcher raises when a rank fails after step 2."""
    error = RankError(rank=rank, kind=kind, message=message, traceback="line 3")
    return RunError(judge({rank: error}, last_steps={rank: 2}))


class Seen:
    """A watcher that keeps what it sees."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, list[int]]] = []
        """Stints of a group, and of those that come later."""
        self.failures: list[tuple[str, str]] = []
        self.first_rounds: list[str] = []
        self.has_ended = False
        self.draws = True
        self.on_record: Callable[[Stint, Record], None] = lambda _stint, _record: None

    def begins(self, stints: Sequence[Stint], *, later: Sequence[Sequence[Stint]]) -> None:
        self.begun.append((len(stints), [len(some) for some in later]))

    def record(self, stint: Stint, record: Record) -> None:
        self.on_record(stint, record)

    def done(self, stint: Stint, record: RunRecord | None) -> None:
        if record is not None:
            self.first_rounds.append(stint.contestant.name)

    def failed(self, contestant: Contestant, failure: Failure) -> None:
        self.failures.append((contestant.name, failure.message))

    def ends(self) -> None:
        self.has_ended = True
        if not self.draws:
            raise KeyboardInterrupt


class Workshop:
    """One state folder, one job and one tracking store, for command after command.

    Args:
        folder: where all of it lies.
        compare: the job's `compare:`.
        job: more sections of the job.
    """

    def __init__(self, folder: Path, compare: dict[str, Any], **job: Any) -> None:
        self.folder = folder
        self.path = small_jobs.write_job(
            folder, compare={"rounds": 2, "round_steps": 3, **compare}, **job
        ).path
        self.home = open_home(folder / "home")
        self.tracker = InMemoryTracker()
        self.watcher = Seen()
        self.n_taken_up: int | None = None
        """How many strategies the last command found settled."""
        self._n_commands = 0

    def plan(self, *overrides: str) -> tuple[JobFile, list[PlannedStrategy]]:
        """What a command compares."""
        job = load_job(self.path, overrides=overrides)
        return job, plan_strategies(job, machine=small_jobs.MACHINE, environment={})

    def open(self, job: JobFile, planned: Sequence[PlannedStrategy]) -> ComparisonFolder:
        """The folder that a command takes, as the verb does."""
        assert job.spec.compare is not None
        print_of_all = fingerprint(planned, job.spec.compare, machine=small_jobs.MACHINE)
        found = unfinished(self.home, fingerprint=print_of_all)
        return found or new_folder(
            self.home,
            name=job.spec.name,
            # A command a second.
            at_unix_s=1_800_000_000 + self._n_commands,
            fingerprint=print_of_all,
        )

    def compare(
        self,
        ranks: Ranks,
        *overrides: str,
        planned: Sequence[PlannedStrategy] | None = None,
        isolated: bool = False,
        draws: bool = False,
        watcher: Watcher | None = None,
        delivery_timeout_s: float = 10.0,
    ) -> Compared:
        """Do what the command does; unless it `draws`, as if Ctrl-C saved the seconds it takes."""
        self._n_commands += 1
        job, own = self.plan(*overrides)
        planned = planned or own
        folder = self.open(job, planned)
        setting = Setting(
            home=self.home,
            open_tracker=lambda: self.tracker,
            started_unix_s=time.time(),
            user="me",
            commit="0" * 40,
            extensions=self.folder / "extensions",
        )
        self.watcher = Seen() if self.watcher.begun else self.watcher
        self.watcher.draws = draws
        comparison = Comparison(
            job,
            planned,
            folder=folder,
            setting=setting,
            launcher=ranks,
            watcher=watcher or self.watcher,
            isolated=isolated,
        )
        try:
            self.n_taken_up = comparison.take_up()
            return comparison.run(delivery_timeout_s=delivery_timeout_s)
        finally:
            folder.release()


def outcomes(compared: Compared) -> dict[str, str]:
    """Strategy -> outcome, of every row."""
    rows = compared.reported.ranking.to_json()["rows"]
    return {row["strategy"]: row["outcome"] for row in rows}


def messages(compared: Compared) -> dict[str, str | None]:
    """Strategy -> message, of every row."""
    rows = compared.reported.ranking.to_json()["rows"]
    return {row["strategy"]: row["message"] for row in rows}
