import itertools

import pytest

from orchestrator.draw.label_places import Label, label_places

BOUNDS = (0.0, 0.0, 800.0, 500.0)


def label(x, y, *, width=60, height=12, radius=5):
    return Label(x=x, y=y, radius=radius, width=width, height=height)


def boxes(labels, **settings):
    places = label_places(labels, bounds=BOUNDS, **settings)
    return [
        (place.x, place.y, place.x + label.width, place.y + label.height)
        for label, place in zip(labels, places, strict=True)
    ]


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize(
    "labels",
    [
        [label(400, 250)] * 50,
        [label(10 * i, 250 + i % 3) for i in range(50)],
        [label(0, 0), label(800, 500), label(0, 500), label(800, 0)],
        [label(400, 250, width=200) for _ in range(16)],
    ],
    ids=["50 at one place", "50 in a row", "in the corners", "16 long ones at one place"],
)
def test_no_label_lies_on_another_or_on_a_mark_or_outside(labels):
    placed = boxes(labels)
    assert not any(overlap(*pair) for pair in itertools.combinations(placed, 2))
    for mark in labels:
        square = (mark.x - 5, mark.y - 5, mark.x + 5, mark.y + 5)
        assert not any(overlap(box, square) for box in placed)
    for box in placed:
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[2] <= 800
        assert box[3] <= 500


def test_a_label_that_is_alone_is_right_beside_its_mark():
    (place,) = label_places([label(400, 250)], bounds=BOUNDS)
    # The mark reaches 5 far, and 3 more are left free.
    assert place.gap <= 8.001


def test_a_label_is_not_on_a_line_if_there_is_room_elsewhere():
    line = [(400.0 + i, 250.0) for i in range(200)] + [(400.0, 250.0 + i) for i in range(200)]
    (box,) = boxes([label(400, 250)], avoid=line)
    assert not any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in line)


def test_without_labels_there_are_no_places():
    assert label_places([], bounds=BOUNDS) == []
