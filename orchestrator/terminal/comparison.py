"""A comparison's progress: whose turn it is, how far it is, how long all of it will take."""

import time
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TextIO

from orchestrator.launch.comparison.contestant import FIRST_ROUND, Contestant
from orchestrator.launch.comparison.stint import Stint
from orchestrator.launch.failure import Failure
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.sample import RankFacts, RankSample, Record
from orchestrator.terminal.lines import StatusLines
from orchestrator.terminal.progress import Progress
from orchestrator.units import as_duration, as_mib

EXPECTED_START_S = 10.0
"""What starting ranks takes, until one start was seen."""


class ComparisonDisplay:
    """Shows a comparison on a terminal.

    Args:
        out: the terminal, or whatever stands for it.
        n_rounds: rounds of the comparison.
        clock: seconds, from any start.
    """

    def __init__(
        self, out: TextIO, *, n_rounds: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lines = StatusLines(out)
        self._n_rounds = n_rounds
        self._clock = clock
        self._left: list[Stint] = []
        """Of all groups, the one under way first."""
        self._n_groups_later = 0
        self._n_over = 0
        self._progress = Progress()
        self._starts = False
        self._began_s = 0.0
        self._start_s: list[float] = []
        """What starting the ranks took, of each group."""
        self._took_s: dict[bool, list[float]] = {True: [], False: []}
        """Whether it was a first round -> seconds a step, of each stint that is done."""
        self._width = 0

    def begins(self, stints: Sequence[Stint], *, later: Sequence[Sequence[Stint]]) -> None:
        """A group of ranks is started for these stints; groups for others come later."""
        self._left = [stint for some in (stints, *later) for stint in some]
        self._n_groups_later = len(later)
        self._width = max(self._width, *(len(stint.contestant.name) for stint in self._left))
        self._progress = Progress()
        self._starts = True
        n_ranks = stints[0].plan.resources.workers
        patience = "" if self._start_s else "; this takes about ten seconds"
        self._lines.say(f"Starting {_ranks(n_ranks)} for {self._whom(stints)}{patience}")
        self._began_s = self._clock()

    def record(self, stint: Stint, record: Record) -> None:
        """A rank has told something."""
        if not isinstance(record, RankSample):
            if isinstance(record, RankFacts):
                self._progress.line(record)
                if self._starts:
                    # Starting the ranks is no part of the first turn.
                    self._starts = False
                    self._start_s.append(self._clock() - self._began_s)
                    self._began_s = self._clock()
            return
        told = self._progress.step(record)
        if told is not None:
            n_all = self._n_over + len(self._left)
            # How long this turn takes says little; the whole comparison is what is waited for.
            step = told.rpartition("  ")[0] if told.endswith("left") else told
            self._lines.update(
                f"[{self._n_over + 1:>{len(str(n_all))}}/{n_all}] about "
                f"{_roughly(self._left_s(record.step))} left  "
                f"{_whose(stint, self._n_rounds)}  {step}"
            )

    def done(self, stint: Stint, record: RunRecord | None) -> None:
        """Every rank is done with a stint."""
        now_s = self._clock()
        took_s = (now_s - self._began_s) / max(1, stint.n_steps)
        self._took_s[stint.round == FIRST_ROUND].append(took_s)
        self._began_s = now_s
        self._left = self._left[1:]
        self._n_over += 1
        self._progress = Progress()
        if record is not None:
            rate = record.samples_per_s
            speed = "-" if rate is None else f"{rate:,.1f} samples/s"
            loss = f"loss {record.losses[-1]:.4f}" if record.losses else ""
            name = f"{stint.contestant.name:<{self._width}}"
            self._lines.replace(f"  {name}  {as_mib(record.peak_bytes):>12}  {speed:>18}  {loss}")

    def failed(self, contestant: Contestant, failure: Failure) -> None:
        """A strategy has failed."""
        self._n_over += contestant.planned.infeasible is None
        self._width = max(self._width, len(contestant.name))
        self._lines.replace(
            f"  {contestant.name:<{self._width}}  {failure.outcome}: {failure.message}"
        )

    def ends(self) -> None:
        """Nothing more is run; the report is drawn and written."""
        self._lines.replace("All turns are over; drawing and writing the report")

    def close(self) -> None:
        """Leave the last line standing."""
        self._lines.close()

    def _whom(self, stints: Sequence[Stint]) -> str:
        if len(stints) == 1:
            return _whose(stints[0], self._n_rounds)
        if all(stint.is_control for stint in stints):
            return f"{_whose(stints[0], self._n_rounds)}, in {len(stints)} turns"
        n_strategies = len({stint.contestant.name for stint in stints})
        strategies = "1 strategy" if n_strategies == 1 else f"{n_strategies} strategies"
        return f"{strategies} in {len(stints)} turns"

    def _left_s(self, step: int) -> float:
        """Seconds until the last stint of the comparison is done.

        Args:
            step: how far the stint under way is.
        """
        # The steps of a run that is counted in epochs are known only now.
        share_done = step / max(step, self._progress.total_steps)
        now, *others = self._left
        done_steps = share_done * now.n_steps
        pace_s = (self._clock() - self._began_s) / max(done_steps, 1e-9)
        left_s = (now.n_steps - done_steps) * self._step_s(now, else_s=pace_s)
        left_s += sum(other.n_steps * self._step_s(other, else_s=pace_s) for other in others)
        return left_s + self._n_groups_later * fmean(self._start_s or [EXPECTED_START_S])

    def _step_s(self, stint: Stint, *, else_s: float) -> float:
        """Seconds of a step of such stints, as far as any is known."""
        of_all = [seconds for kind in self._took_s.values() for seconds in kind]
        return fmean(self._took_s[stint.round == FIRST_ROUND] or of_all or [else_s])


def _roughly(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else as_duration(seconds)


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"


def _whose(stint: Stint, n_rounds: int) -> str:
    name = stint.contestant.name
    if stint.is_control:
        return f"{name} from weights moved by a bit"
    return f"{name} (round {stint.round} of {n_rounds})" if n_rounds > 1 else name
