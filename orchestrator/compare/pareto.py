"""The Pareto front of memory and speed: what nothing else beats in both. Pure arithmetic."""

import math
from collections.abc import Sequence

Point = tuple[int | None, float | None]
"""Peak memory in bytes and samples/s; `None` where unknown."""


def pareto_front(points: Sequence[Point]) -> list[bool]:
    """Tell for each point whether it is on the front.

    Args:
        points: one a strategy.

    Returns:
        Whether no other point is at least as good in both numbers and better in one. Equal points
        are on the front together; one of which a number is unknown is not on it.
    """
    known = {(peak, speed) for peak, speed in points if peak is not None and speed is not None}
    front: set[Point] = set()
    fastest_yet = -math.inf
    # With memory ascending, and the fastest first where it is equal, only more speed is on it.
    for peak, speed in sorted(known, key=lambda point: (point[0], -point[1])):
        if speed > fastest_yet:
            front.add((peak, speed))
            fastest_yet = speed
    return [point in front for point in points]
