"""Steps put together from the records of ranks, in whatever order ranks and chunks arrive.

A step's points are made once every rank has reported it; the points are a function of the records'
order and times alone, so that reading them again makes the same points. Touches nothing outside.

What goes out, so that one writer keeps up with a thousand ranks:

- every step's values of the whole job and, beyond 16 ranks, their spread over the ranks;
- single ranks as far as `POINTS_PER_S` allows, a step of all ranks or none, so that ranks can be
  compared within a step; probe steps always;
- of running peaks and of what they were made of, single ranks' and spread, what changes, and else
  every 50th step;
- at the end the last step of every line.

Nothing is lost that way: every sample stays in the spool, and the summary and the tables among the
artifacts are made from samples, not from these points. A stock of `BURST_POINTS` lets a short run
go out whole; so does a long one of 64 ranks at a step a second, or of two at thirty: a step is
about 14 points a rank on a GPU and 8 on a CPU.
"""

from orchestrator.measure.nodes import NodeBoard
from orchestrator.measure.peaks import RankPeaks, RankStep
from orchestrator.measure.points import (
    MetricPoint,
    eval_points,
    finite,
    job_points,
    rank_points,
    spread_points,
)
from orchestrator.measure.sample import EvalResult, NodeSample, RankFacts, RankSample, Record
from orchestrator.measure.thinning import Budget, SentLines

POINTS_PER_S = 1000
"""Single ranks' points a second. MLflow on SQLite takes about 7,000 a second of one core, and less
on a machine that also trains (`tests/benchmarks/telemetry.py`)."""
BURST_POINTS = 20_000


class StepAssembler:
    """Takes records one by one and gives points, every step once and in ascending order.

    A restart sends a rank's facts again and repeats steps: what a rank had waiting is then dropped,
    and of steps that are out already only the peaks are taken.
    """

    def __init__(
        self,
        *,
        max_waiting_samples: int = 20_000,
        points_per_s: float = POINTS_PER_S,
        burst_points: float = BURST_POINTS,
    ) -> None:
        """Start with nothing known.

        Args:
            max_waiting_samples: samples that may wait for a rank, but always two steps; beyond, the
                oldest step is given out without it. Two kilobytes each.
            points_per_s: single ranks' points a second of the records' time, in the long run.
            burst_points: single ranks' points that may go out at once.
        """
        self.n_dropped = 0
        """Values left out because they were infinite or not a number."""
        self._max_waiting_samples = max_waiting_samples
        self._world_size: int | None = None
        self._peaks: dict[int, RankPeaks] = {}
        self._waiting: dict[int, dict[int, RankStep]] = {}
        self._n_waiting = 0
        self._last_step = 0
        self._last_eval_step = 0
        self._last_of_rank: dict[int, RankStep] = {}
        self._last_whole: list[RankStep] = []
        self._lines = SentLines()
        self._budget = Budget(points_per_s=points_per_s, stock=burst_points)
        self._nodes = NodeBoard()

    def add(self, record: Record) -> list[MetricPoint]:
        """Take one record.

        Returns:
            The points that are complete now; often none.
        """
        match record:
            case RankFacts():
                self._start_rank(record)
                return self._kept(self._nodes.place(record))
            case RankSample():
                return self._take_sample(record)
            case NodeSample():
                return self._kept(self._nodes.add(record))
            case EvalResult() if record.step > self._last_eval_step:
                self._last_eval_step = record.step
                return self._kept(eval_points(record))
            case _:
                return []

    def flush(self) -> list[MetricPoint]:
        """Give out what is still waiting and what was held back of the last step.

        A rank that dies keeps what it had reported.
        """
        waiting = [point for step in sorted(self._waiting) for point in self._give_out(step)]
        last = [self._last_of_rank[rank] for rank in sorted(self._last_of_rank)]
        held_back = self._lines.missing([*spread_points(self._last_whole), *self._single(last)])
        return [*waiting, *self._kept(held_back), *self._kept(self._nodes.release())]

    def _start_rank(self, facts: RankFacts) -> None:
        self._world_size = facts.world_size
        peaks = self._peaks.get(facts.rank, RankPeaks())
        self._peaks[facts.rank] = peaks.after_facts(facts)
        for step, ranks in list(self._waiting.items()):
            self._n_waiting -= ranks.pop(facts.rank, None) is not None
            if not ranks:
                del self._waiting[step]

    def _take_sample(self, sample: RankSample) -> list[MetricPoint]:
        peaks = self._peaks.get(sample.rank, RankPeaks()).after_sample(sample)
        self._peaks[sample.rank] = peaks
        if sample.step <= self._last_step:
            return []
        ranks = self._waiting.setdefault(sample.step, {})
        self._n_waiting += sample.rank not in ranks
        ranks[sample.rank] = RankStep(sample=sample, peaks=peaks)
        if len(ranks) == self._world_size:
            # A rank reports its steps in order, so nothing older can become complete any more.
            ready = sorted(step for step in self._waiting if step <= sample.step)
        elif self._n_waiting > max(self._max_waiting_samples, 2 * (self._world_size or 0)):
            ready = [min(self._waiting)]
        else:
            ready = []
        return [point for step in ready for point in self._give_out(step)]

    def _give_out(self, step: int) -> list[MetricPoint]:
        ranks = self._waiting.pop(step)
        self._n_waiting -= len(ranks)
        self._last_step = step
        self._last_of_rank |= ranks
        steps = [ranks[rank] for rank in sorted(ranks)]
        points: list[MetricPoint] = []
        if len(steps) == self._n_ranks():
            self._last_whole = steps
            points += job_points(steps) + self._lines.news(spread_points(steps))
        time_s = max(rank.sample.time_unix_s for rank in steps)
        if self._budget.allows(time_s=time_s) or any(rank.sample.probe for rank in steps):
            single = self._lines.news(self._single(steps))
            self._budget.spend(len(single))
            points += single
        return self._kept(points)

    def _single(self, steps: list[RankStep]) -> list[MetricPoint]:
        return [point for rank in steps for point in rank_points(rank, world_size=self._n_ranks())]

    def _n_ranks(self) -> int:
        return self._world_size or max(self._last_of_rank, default=0) + 1

    def _kept(self, points: list[MetricPoint]) -> list[MetricPoint]:
        kept = finite(points)
        self.n_dropped += len(points) - len(kept)
        return kept
