"""What of the points is worth sending, so that one writer keeps up with any number of ranks.

A line that seldom changes is told when it does; single ranks are told within a budget of points a
second. Both go by the records alone, never by this machine's clock, so that reading the records
again decides the same. Touches nothing outside.
"""

from collections.abc import Iterable

from orchestrator.measure.points import MetricPoint, changes_rarely

REPEAT_STEPS = 50
"""A line that does not change is told again after so many steps."""


class SentLines:
    """The last point that was sent of every line; a line is all points of one key."""

    def __init__(self) -> None:
        self._sent: dict[str, MetricPoint] = {}

    def news(self, points: Iterable[MetricPoint]) -> list[MetricPoint]:
        """Take what is worth sending: of lines that seldom change, what has."""
        return self._take(point for point in points if self._is_news(point))

    def missing(self, points: Iterable[MetricPoint]) -> list[MetricPoint]:
        """Take the points whose step their line has not reached."""
        return self._take(
            point
            for point in points
            if (last := self._sent.get(point.key)) is None or last.step < point.step
        )

    def _is_news(self, point: MetricPoint) -> bool:
        if not changes_rarely(point):
            return True
        last = self._sent.get(point.key)
        return last is None or last.value != point.value or point.step - last.step >= REPEAT_STEPS

    def _take(self, points: Iterable[MetricPoint]) -> list[MetricPoint]:
        taken = list(points)
        self._sent.update((point.key, point) for point in taken)
        return taken


class Budget:
    """A token bucket: so many points a second in the long run, and a stock for a short run.

    It goes into debt for what must be sent and for the rest of a step that was begun.
    """

    def __init__(self, *, points_per_s: float, stock: float) -> None:
        """Start with a full stock.

        Args:
            points_per_s: what comes back every second of the records' time.
            stock: points that may be spent at once.
        """
        self._points_per_s = points_per_s
        self._stock = stock
        self._left = stock
        self._time_s: float | None = None

    def allows(self, *, time_s: float) -> bool:
        """Whether points may be spent now: not while in debt.

        Args:
            time_s: the records' time; one that lies back counts as the latest so far.
        """
        if self._time_s is None:
            self._time_s = time_s
        passed_s = max(0.0, time_s - self._time_s)
        self._time_s += passed_s
        self._left = min(self._stock, self._left + passed_s * self._points_per_s)
        return self._left >= 0

    def spend(self, n_points: int) -> None:
        """Points were sent."""
        self._left -= n_points
