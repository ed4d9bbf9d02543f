"""Machines by number, and what each was doing as points on MLflow's page of system metrics.

Pure arithmetic; touches nothing outside.
"""

from orchestrator.measure.points import MetricPoint, node_points
from orchestrator.measure.sample import NodeSample, RankFacts

MAX_HELD = 1000
"""Samples that may wait until every rank has said where it is."""


class NodeBoard:
    """Numbers machines by their lowest rank and gives their samples as points.

    A machine has its number once all ranks have said where they are. One that a restart brings in
    gets the next; one whose samples start again from 0 goes on where it was.
    """

    def __init__(self) -> None:
        self._node_of_rank: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._n_digits = 1
        self._held: list[NodeSample] = []
        self._last: dict[str, int] = {}
        self._offset: dict[str, int] = {}

    def place(self, facts: RankFacts) -> list[MetricPoint]:
        """Learn where a rank is.

        Returns:
            The points that waited for this.
        """
        self._node_of_rank[facts.rank] = facts.node
        return self.release() if len(self._node_of_rank) == facts.world_size else []

    def add(self, sample: NodeSample) -> list[MetricPoint]:
        """Take a sample; its points are given once the machines have numbers."""
        if self._numbers:
            return self._points(sample)
        self._held.append(sample)
        return self.release() if len(self._held) > MAX_HELD else []

    def release(self) -> list[MetricPoint]:
        """Number the machines that are known by now, and give out what waited."""
        if not self._numbers:
            told = [self._node_of_rank[rank] for rank in sorted(self._node_of_rank)]
            self._numbers = {node: number for number, node in enumerate(dict.fromkeys(told))}
            self._n_digits = len(str(max(0, len(self._numbers) - 1)))
        held, self._held = self._held, []
        return [point for sample in held for point in self._points(sample)]

    def _points(self, sample: NodeSample) -> list[MetricPoint]:
        number = self._numbers.setdefault(sample.node, len(self._numbers))
        last = self._last.get(sample.node, -1)
        if sample.number <= last - self._offset.get(sample.node, 0):
            self._offset[sample.node] = last + 1
        step = self._last[sample.node] = self._offset.get(sample.node, 0) + sample.number
        return node_points(sample, label=f"node_{number:0{self._n_digits}d}", step=step)
