import math

import numpy as np

from orchestrator.draw.curve import MAX_POINTS, curve_of, difference_curve, envelope_curve


def values(curve):
    assert curve is not None
    return [None if math.isnan(value) else value for value in curve.values.tolist()]


def test_a_curve_has_a_point_a_step_from_1():
    curve = curve_of([2.0, 1.5, 1.25])
    assert curve.steps.tolist() == [1, 2, 3]
    assert values(curve) == [2.0, 1.5, 1.25]
    assert curve.edges.tolist() == [0.5, 1.5, 2.5, 3.5]


def test_what_is_not_finite_is_not_drawn():
    curve = curve_of([2.0, math.nan, math.inf, 1.0])
    assert values(curve) == [2.0, None, None, 1.0]
    assert (curve.bottom, curve.top) == (1.0, 2.0)
    assert curve_of([math.nan]).top is None


def test_many_steps_become_fewer_points_of_equally_many():
    curve = curve_of([float(step % 2) for step in range(3 * MAX_POINTS - 1)])
    assert len(curve.values) == MAX_POINTS
    assert curve.steps_per_point == 3
    # Medians of 0, 1, 0 and of 1, 0, 1; the last point has but two steps.
    assert values(curve)[:2] == [0.0, 1.0]
    assert curve.steps[:2].tolist() == [2, 5]
    assert curve.edges[-1] == 3 * MAX_POINTS - 0.5


def test_differences_leave_out_steps_that_are_equal_or_not_common():
    assert values(difference_curve([2.0, 1.0, 4.0, 9.0], [2.0, 1.5, 3.0])) == [None, 0.5, 1.0]
    assert difference_curve([2.0, 1.0], [2.0, 1.0]) is None
    assert difference_curve([], [2.0]) is None


def test_a_point_of_differences_is_the_largest_of_its_steps():
    base = np.zeros(2 * MAX_POINTS)
    losses = base.copy()
    losses[[0, 1]] = [0.25, -0.5]
    assert values(difference_curve(losses.tolist(), base.tolist()))[:2] == [0.5, None]


def test_an_envelope_never_shrinks():
    control = [1.0, 1.25, 1.0, 1.0, 0.5]
    assert values(envelope_curve(control, [1.0] * 5)) == [None, 0.25, 0.25, 0.25, 0.5]
    assert envelope_curve([1.0], [1.0]) is None
    assert envelope_curve([math.nan], [1.0]) is None
