"""A comparison from its plans to its report: groups of ranks, turn by turn, whatever fails.

A strategy that fails is a row of the result. The group of ranks is then started again, and the
others go on; what an earlier command has measured is not measured twice.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from orchestrator.launch.base import group_key
from orchestrator.launch.comparison.contestant import FIRST_ROUND, Contest, Contestant
from orchestrator.launch.comparison.folder import ComparisonFolder
from orchestrator.launch.comparison.group import GroupEnd, GroupLauncher, run_group
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.comparison.record import (
    DELIVERY_TIMEOUT_S,
    Compared,
    ComparisonRecord,
)
from orchestrator.launch.comparison.stint import (
    Stint,
    alone,
    can_follow,
    controls_of,
    stints_of,
)
from orchestrator.launch.failure import Failure
from orchestrator.launch.open_run import Setting
from orchestrator.launch.stop_signals import signals_held_back
from orchestrator.measure.run_record import Outcome, RunRecord
from orchestrator.measure.sample import Record
from orchestrator.measure.summary import RunTally
from orchestrator.spec.load import JobFile
from orchestrator.spec.sections import CompareSection

FREE_AGAIN_S = 60.0
"""Longest until a cluster has taken back what ranks held that have ended."""
ASK_EVERY_S = 1.0

log = logging.getLogger(__name__)


class Renewable(GroupLauncher, Protocol):
    """A launcher that can begin again with nothing left of what it ran."""

    def renew(self) -> None:
        """Clear away what a group of ranks has left."""
        ...


class Watcher(Protocol):
    """Sees how a comparison goes; called in several threads, one at a time."""

    def begins(self, stints: Sequence[Stint], *, later: Sequence[Sequence[Stint]]) -> None:
        """A group of ranks is started for these stints; groups for others come later."""

    def record(self, stint: Stint, record: Record) -> None:
        """A rank has told something."""

    def done(self, stint: Stint, record: RunRecord | None) -> None:
        """Every rank is done with a stint; what it came to, if it is a first round."""

    def failed(self, contestant: Contestant, failure: Failure) -> None:
        """A strategy has failed."""

    def ends(self) -> None:
        """Nothing more is run; the report is drawn and written."""


class Comparison:
    """One comparison.

    Args:
        job: the file, kept with it.
        planned: its strategies.
        folder: where it lies; may hold what an earlier command has measured.
        setting: its circumstances.
        launcher: runs groups of ranks.
        watcher: sees how it goes.
        isolated: every stint has processes of its own.
    """

    def __init__(
        self,
        job: JobFile,
        planned: Sequence[PlannedStrategy],
        *,
        folder: ComparisonFolder,
        setting: Setting,
        launcher: Renewable,
        watcher: Watcher,
        isolated: bool = False,
    ) -> None:
        if job.spec.compare is None:
            raise ValueError("the job compares nothing")
        self._job = job
        self._compare: CompareSection = job.spec.compare
        self._folder = folder
        self._setting = setting
        self._launcher = launcher
        self._watcher = watcher
        self._isolated = isolated
        contest = Contest(
            folder=folder,
            setting=setting,
            n_rounds=self._compare.rounds,
            n_strategies=len(planned),
        )
        self.contestants = [
            Contestant(one, index=index, contest=contest) for index, one in enumerate(planned)
        ]
        self._kept = ComparisonRecord(job, self.contestants, folder=folder, setting=setting)
        self._tallies: dict[Path, RunTally] = {}
        self._has_run = False
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="draws")
        self._drawing: list[Future[None]] = []

    def take_up(self) -> int:
        """Take over what an earlier command has left; says how many strategies are settled."""
        given_up = [outbox for one in self.contestants if (outbox := one.take_up())]
        self._kept.begin(given_up)
        return sum(one.is_settled for one in self.contestants)

    def run(self, *, delivery_timeout_s: float = DELIVERY_TIMEOUT_S) -> Compared:
        """Run what is missing, report, and deliver; `take_up` comes before.

        A strategy's failure does not raise. Ctrl-C ends the comparison early, with what there is.

        Args:
            delivery_timeout_s: longest wait at the end for a tracking store that is away.

        Raises:
            OSError: the folder cannot be written; what is measured is kept.
        """
        started_s = time.monotonic()
        interrupted = False
        try:
            for one in self.contestants:
                if one.planned.infeasible is not None and not one.is_settled:
                    self._fail(one, _infeasible(one))
            self._run_groups()
            self._watcher.ends()
            # Drawing many strategies takes a while, and may be stopped.
            wait(self._drawing)
            self._settle(interrupted=False)
        except KeyboardInterrupt:
            interrupted = True
        with signals_held_back(show=log.warning):
            self._beside.shutdown(cancel_futures=True)
            self._settle(interrupted=interrupted)
            spent_s = time.monotonic() - started_s
            return self._kept.end(
                interrupted=interrupted,
                spent_s=spent_s,
                delivery_timeout_s=delivery_timeout_s,
            )

    def _run_groups(self) -> None:
        """Run every group of ranks.

        Raises:
            KeyboardInterrupt: the user stopped it.
        """
        left = self._with_controls(stints_of(self.contestants, self._compare))
        if self._isolated:
            left = [group for stints in left for group in alone(stints)]
        while left:
            now, *later = left
            end = self._run_group(now, later=later)
            if end.outcome == "interrupted":
                raise KeyboardInterrupt
            left = [stints for stints in self._after(now, later, end) if stints]
            if left:
                wait(self._drawing)
            if end.failure is not None or not left or not can_follow(left[0], now):
                self._launcher.renew()

    def _with_controls(self, groups: list[list[Stint]]) -> list[list[Stint]]:
        """Put the controls behind what the baseline's own ranks run."""
        baseline = self._kept.baseline
        failed = baseline.is_settled and not baseline.has_ended_well
        if failed or len(self.contestants) < 2:
            return groups
        controls = controls_of(baseline, self.contestants, folder=self._folder)
        if not controls:
            return groups
        key = group_key(baseline.planned.plan)
        for number, stints in enumerate(groups):
            if group_key(stints[0].plan) == key:
                return [*groups[:number], [*stints, *controls], *groups[number + 1 :]]
        # All strategies of its kind were measured by an earlier command.
        return [*groups, controls] if baseline.has_ended_well else groups

    def _run_group(self, stints: Sequence[Stint], *, later: Sequence[Sequence[Stint]]) -> GroupEnd:
        self._watcher.begins(stints, later=later)
        end = self._try_group(stints)
        deadline_s = time.monotonic() + (FREE_AGAIN_S if self._has_run else 0.0)
        while end.outcome == "infeasible" and time.monotonic() < deadline_s:
            # It may be this comparison's own ranks that still hold the cluster.
            time.sleep(ASK_EVERY_S)
            end = self._try_group(stints)
        self._has_run = True
        return end

    def _try_group(self, stints: Sequence[Stint]) -> GroupEnd:
        self._tallies.clear()
        for stint in stints:
            stint.clear()
        return run_group(
            [one.launch(self._compare, extensions=self._setting.extensions) for one in stints],
            launcher=self._launcher,
            on_record=lambda number, record: self._take(stints[number], record),
            on_done=lambda number: self._done(stints[number]),
            hang_timeout_s=self._compare.hang_timeout_s,
        )

    def _after(
        self, stints: list[Stint], later: list[list[Stint]], end: GroupEnd
    ) -> list[list[Stint]]:
        """What is left to run after a group ended, without what failed."""
        left = [stints[end.n_done :], *later]
        if end.failure is None or not left[0]:
            return left
        failed = left[0][0]
        if failed.is_control:
            log.warning(
                "how far rounding alone takes the losses stays unknown: %s", end.failure.message
            )
            return [[stint for stint in some if not stint.is_control] for some in left]
        told = end.failure
        if failed.round != FIRST_ROUND:
            told = replace(told, message=f"in round {failed.round}: {told.message}")
        self._fail(failed.contestant, told)
        return [
            [stint for stint in some if stint.contestant is not failed.contestant] for some in left
        ]

    def _take(self, stint: Stint, record: Record) -> None:
        one = stint.contestant
        if stint.is_control:
            self._draw_beside()
        elif stint.round == FIRST_ROUND:
            if not one.is_begun:
                self._kept.add(one.begin(record))
            one.take(record)
        else:
            self._tallies.setdefault(stint.folder, RunTally()).take(record)
        self._watcher.record(stint, record)

    def _draw_beside(self) -> None:
        """Draw what is settled while controls run: nobody's time is measured meanwhile."""
        if not self._drawing:
            self._drawing = [
                self._beside.submit(one.seal, plots=True)
                for one in self.contestants
                if one.is_settled
            ]

    def _done(self, stint: Stint) -> None:
        one = stint.contestant
        if stint.is_control:
            self._watcher.done(stint, None)
            return
        one.round_is_whole(stint.round, self._tallies.pop(stint.folder, None))
        self._watcher.done(stint, one.summed_up() if stint.round == FIRST_ROUND else None)
        if not one.missing_rounds():
            one.settle("ok", None)

    def _fail(self, one: Contestant, failure: Failure) -> None:
        if not one.is_begun:
            self._kept.add(one.begin())
        one.settle(failure.outcome, failure)
        self._watcher.failed(one, failure)

    def _settle(self, *, interrupted: bool) -> None:
        """Give an outcome to all that have begun; a strategy of which a round is whole has one."""
        for one in self.contestants:
            if one.is_begun and not one.is_settled:
                if one.rounds or not interrupted:
                    one.settle("ok", None)
                else:
                    message = "interrupted; the comparison was stopped"
                    one.settle("interrupted", _unran("interrupted", message))
            one.seal(plots=not interrupted)


def _infeasible(one: Contestant) -> Failure:
    return _unran("infeasible", one.planned.infeasible or "")


def _unran(outcome: Outcome, message: str) -> Failure:
    return Failure(outcome=outcome, rank=None, step=None, message=message, details="")
