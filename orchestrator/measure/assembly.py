"""Steps put together from the records of ranks, in whatever order ranks and chunks arrive.

A step's points are made once every rank has reported it; the points are a function of the records'
order alone, so that reading them again makes the same points. Touches nothing outside.
"""

from orchestrator.measure.peaks import RankPeaks, RankStep
from orchestrator.measure.points import MetricPoint, eval_points, finite, points_of
from orchestrator.measure.sample import EvalResult, RankFacts, RankSample, Record


class StepAssembler:
    """Takes records one by one and gives points, every step once and in ascending order.

    A restart sends a rank's facts again and repeats steps: what a rank had waiting is then dropped,
    and of steps that are out already only the peaks are taken.
    """

    def __init__(self, *, max_waiting_steps: int = 1000) -> None:
        """Start with nothing known.

        Args:
            max_waiting_steps: steps that may wait for a rank; beyond, the oldest is given out
                without it.
        """
        self.n_dropped = 0
        """Values left out because they were infinite or not a number."""
        self._max_waiting_steps = max_waiting_steps
        self._world_size: int | None = None
        self._peaks: dict[int, RankPeaks] = {}
        self._waiting: dict[int, dict[int, RankStep]] = {}
        self._last_step = 0
        self._last_eval_step = 0

    def add(self, record: Record) -> list[MetricPoint]:
        """Take one record.

        Returns:
            The points that are complete now; often none.
        """
        match record:
            case RankFacts():
                self._start_rank(record)
                return []
            case RankSample():
                return self._take_sample(record)
            case EvalResult() if record.step > self._last_eval_step:
                self._last_eval_step = record.step
                return self._kept(eval_points(record))
            case _:
                return []

    def flush(self) -> list[MetricPoint]:
        """Give out what is still waiting: a rank that dies keeps what it had reported."""
        return [point for step in sorted(self._waiting) for point in self._give_out(step)]

    def _start_rank(self, facts: RankFacts) -> None:
        self._world_size = facts.world_size
        peaks = self._peaks.get(facts.rank, RankPeaks())
        self._peaks[facts.rank] = peaks.after_facts(facts)
        for ranks in self._waiting.values():
            ranks.pop(facts.rank, None)

    def _take_sample(self, sample: RankSample) -> list[MetricPoint]:
        peaks = self._peaks.get(sample.rank, RankPeaks()).after_sample(sample)
        self._peaks[sample.rank] = peaks
        if sample.step <= self._last_step:
            return []
        ranks = self._waiting.setdefault(sample.step, {})
        ranks[sample.rank] = RankStep(sample=sample, peaks=peaks)
        if len(ranks) == self._world_size:
            # A rank reports its steps in order, so nothing older can become complete any more.
            ready = sorted(step for step in self._waiting if step <= sample.step)
        elif len(self._waiting) > self._max_waiting_steps:
            ready = [min(self._waiting)]
        else:
            ready = []
        return [point for step in ready for point in self._give_out(step)]

    def _give_out(self, step: int) -> list[MetricPoint]:
        ranks = self._waiting.pop(step)
        self._last_step = max(self._last_step, step)
        world_size = self._world_size or max(ranks, default=0) + 1
        return self._kept(points_of(ranks, world_size=world_size))

    def _kept(self, points: list[MetricPoint]) -> list[MetricPoint]:
        kept = finite(points)
        self.n_dropped += len(points) - len(kept)
        return kept
