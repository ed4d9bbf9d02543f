"""Where the labels of points go, so that none lies on another or on a point. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAPS = (3, 7, 12, 18, 26, 36, 48, 62, 80, 102, 130, 165, 210, 265, 330)
"""How far from the edge of its point a label may be."""
N_ANGLES = 24
GRID_COLUMNS, GRID_ROWS = 24, 60
"""Places all over, tried where everything around the point is taken."""
AVOIDED_COST = 14.0
"""For each thing better left free that a label lies on: so much further away it may be instead."""
CROSSED_COST = 60.0
"""For each label or mark that a label's leader line runs through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is to be placed; in any unit of length that has the same size both ways."""

    x: float
    """Of its point."""
    y: float
    radius: float
    """Of its point's mark."""
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlace:
    """Where a label goes."""

    x: float
    """Its left edge."""
    y: float
    """Its lower edge."""
    touches_x: float
    """Where it is closest to its point."""
    touches_y: float
    gap: float
    """From there to the middle of the point."""


def label_places(
    labels: Sequence[Label],
    *,
    bounds: tuple[float, float, float, float],
    avoid: Sequence[tuple[float, float]] = (),
) -> list[LabelPlace]:
    """Place labels one after the other, each as close to its point as the earlier ones let it.

    Args:
        labels: the most important first.
        bounds: left, lower, right and upper edge of where they may be.
        avoid: points on lines that labels had better not lie on.

    Returns:
        A place for each. None lies on another label or on a mark, unless there is nowhere left.
    """
    marks = np.array(
        [(a.x - a.radius, a.y - a.radius, a.x + a.radius, a.y + a.radius) for a in labels],
        dtype=np.float64,
    ).reshape(-1, 4)
    softly = np.array(avoid, dtype=np.float64).reshape(-1, 2)
    taken = np.empty((0, 4))
    places = []
    for label in labels:
        boxes = _free(_around(label), taken=taken, marks=marks, bounds=bounds)
        if not len(boxes):
            boxes = _all_over(label, bounds)
            free = _free(boxes, taken=taken, marks=marks, bounds=bounds)
            boxes = free if len(free) else boxes
        touches = _touches(label, boxes)
        gaps = np.hypot(touches[:, 0] - label.x, touches[:, 1] - label.y)
        leaders = _along(label, touches)
        cost = gaps + AVOIDED_COST * _n_within(boxes, softly)
        cost += CROSSED_COST * _n_crossed(leaders, np.vstack([taken, _others(marks, label)]))
        best = int(np.argmin(cost))
        places.append(
            LabelPlace(
                x=float(boxes[best, 0]),
                y=float(boxes[best, 1]),
                touches_x=float(touches[best, 0]),
                touches_y=float(touches[best, 1]),
                gap=float(gaps[best]),
            )
        )
        taken = np.vstack([taken, boxes[best]])
        softly = np.vstack([softly, leaders[best]])
    return places


def _free(
    boxes: Floats, *, taken: Floats, marks: Floats, bounds: tuple[float, float, float, float]
) -> Floats:
    """The boxes that lie within the bounds, and on nothing."""
    left, low, right, high = bounds
    inside = boxes[
        (boxes[:, 0] >= left)
        & (boxes[:, 1] >= low)
        & (boxes[:, 2] <= right)
        & (boxes[:, 3] <= high)
    ]
    free: Floats = inside[~_overlaps(inside, np.vstack([taken, marks]))]
    return free


def _around(label: Label) -> Floats:
    """Boxes around the point, nearer and further."""
    angles = np.arange(N_ANGLES) * 2 * np.pi / N_ANGLES
    gaps = np.array(GAPS, dtype=np.float64)[:, None] + label.radius
    around_x = label.x + np.cos(angles) * (gaps + label.width / 2)
    around_y = label.y + np.sin(angles) * (gaps + label.height / 2)
    return _boxes(label, around_x - label.width / 2, around_y - label.height / 2)


def _all_over(label: Label, bounds: tuple[float, float, float, float]) -> Floats:
    left, low, right, high = bounds
    x, y = np.meshgrid(
        np.linspace(left, right - label.width, GRID_COLUMNS),
        np.linspace(low, high - label.height, GRID_ROWS),
    )
    return _boxes(label, x, y)


def _boxes(label: Label, x: Floats, y: Floats) -> Floats:
    left, low = x.ravel(), y.ravel()
    return np.stack([left, low, left + label.width, low + label.height], axis=1)


def _others(marks: Floats, label: Label) -> Floats:
    """The marks that the label's point does not lie in."""
    x, y = label.x, label.y
    within = (marks[:, 0] <= x) & (marks[:, 1] <= y) & (marks[:, 2] >= x) & (marks[:, 3] >= y)
    others: Floats = marks[~within]
    return others


def _touches(label: Label, boxes: Floats) -> Floats:
    x = np.clip(label.x, boxes[:, 0], boxes[:, 2])
    y = np.clip(label.y, boxes[:, 1], boxes[:, 3])
    return np.stack([x, y], axis=1)


def _along(label: Label, touches: Floats) -> Floats:
    """Points on the way from the point's edge to each box: box, point, coordinate."""
    shares = np.linspace(0.1, 1.0, 24)[None, :, None]
    start = np.array([label.x, label.y])
    along: Floats = start + shares * (touches[:, None, :] - start)
    return along


def _overlaps(boxes: Floats, others: Floats) -> NDArray[np.bool_]:
    """Which boxes lie on another."""
    mine, theirs = boxes[:, None, :], others[None, :, :]
    apart = (
        (mine[..., 2] <= theirs[..., 0])
        | (theirs[..., 2] <= mine[..., 0])
        | (mine[..., 3] <= theirs[..., 1])
        | (theirs[..., 3] <= mine[..., 1])
    )
    return np.asarray(np.any(~apart, axis=1), dtype=np.bool_)


def _n_within(boxes: Floats, points: Floats) -> Floats:
    mine = boxes[:, None, :]
    within = (
        (points[None, :, 0] > mine[..., 0])
        & (points[None, :, 0] < mine[..., 2])
        & (points[None, :, 1] > mine[..., 1])
        & (points[None, :, 1] < mine[..., 3])
    )
    return np.asarray(np.sum(within, axis=1), dtype=np.float64)


def _n_crossed(leaders: Floats, boxes: Floats) -> Floats:
    """How many boxes each leader line runs through."""
    x, y = leaders[:, :, None, 0], leaders[:, :, None, 1]
    within = (x > boxes[:, 0]) & (x < boxes[:, 2]) & (y > boxes[:, 1]) & (y < boxes[:, 3])
    return np.asarray(np.sum(np.any(within, axis=1), axis=1), dtype=np.float64)
