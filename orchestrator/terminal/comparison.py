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
        self._n_all = 0
        self._progress = Progress()
        self._began_s = 0.0
        self._took_s: dict[bool, list[float]] = {True: [], False: []}
        """Whether it was a first round -> seconds a step, of each stint that is done."""
        self._width = 0

    def begins(self, stints: Sequence[Stint]) -> None:
        """A group of ranks is started for these stints."""
        self._left = list(stints)
        self._n_all = len(stints)
        self._width = max(len(stint.contestant.name) for stint in stints)
        self._progress = Progress()
        self._began_s = self._clock()
        n_strategies = len({stint.contestant.name for stint in stints})
        n_ranks = stints[0].plan.resources.workers
        self._lines.say(
            f"Starting {n_ranks} rank{'s' if n_ranks != 1 else ''} for {n_strategies} "
            f"strateg{'ies' if n_strategies != 1 else 'y'} in {len(stints)} turns; "
            "this takes about ten seconds"
        )

    def record(self, stint: Stint, record: Record) -> None:
        """A rank has told something."""
        if not isinstance(record, RankSample):
            if isinstance(record, RankFacts):
                self._progress.line(record)
                if self._is_first(stint):
                    # Starting the ranks is no part of the first turn.
                    self._began_s = self._clock()
            return
        told = self._progress.step(record)
        if told is not None:
            number = self._n_all - len(self._left) + 1
            width = len(str(self._n_all))
            # How long this turn takes says little; the whole comparison is what is waited for.
            step = told.rpartition("  ")[0] if told.endswith("left") else told
            self._lines.update(
                f"[{number:>{width}}/{self._n_all}] {_whose(stint, self._n_rounds)}  {step}  "
                f"{self._time_left(record.step)}".rstrip()
            )

    def done(self, stint: Stint, record: RunRecord | None) -> None:
        """Every rank is done with a stint."""
        now_s = self._clock()
        took_s = (now_s - self._began_s) / max(1, stint.n_steps)
        self._took_s[stint.round == FIRST_ROUND].append(took_s)
        self._began_s = now_s
        self._left = self._left[1:]
        self._progress = Progress()
        if record is not None:
            rate = record.samples_per_s
            speed = "-" if rate is None else f"{rate:,.1f} samples/s"
            loss = f"loss {record.losses[-1]:.4f}" if record.losses else ""
            name = f"{stint.contestant.name:<{self._width}}"
            self._lines.replace(f"  {name}  {as_mib(record.peak_bytes):>12}  {speed:>18}  {loss}")

    def failed(self, contestant: Contestant, failure: Failure) -> None:
        """A strategy has failed."""
        self._lines.replace(
            f"  {contestant.name:<{self._width}}  {failure.outcome}: {failure.message}"
        )

    def close(self) -> None:
        """Leave the last line standing."""
        self._lines.close()

    def _is_first(self, stint: Stint) -> bool:
        return len(self._left) == self._n_all and bool(self._left) and self._left[0] is stint

    def _time_left(self, step: int) -> str:
        """How long until the last stint of these ranks is done."""
        if not any(self._took_s.values()):
            return ""
        left_s = 0.0
        for number, stint in enumerate(self._left):
            known = self._took_s[stint.round == FIRST_ROUND] or [
                seconds for kind in self._took_s.values() for seconds in kind
            ]
            n_steps = stint.n_steps - step if number == 0 else stint.n_steps
            left_s += max(0, n_steps) * fmean(known)
        return f"about {as_duration(left_s)} left"


def _whose(stint: Stint, n_rounds: int) -> str:
    name = stint.contestant.name
    if stint.is_control:
        return f"{name} from weights moved by a bit"
    return f"{name} (round {stint.round} of {n_rounds})" if n_rounds > 1 else name
