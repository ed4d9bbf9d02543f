import pytest

from orchestrator.compare.pareto import pareto_front


def test_what_is_beaten_in_both_is_not_on_the_front():
    assert pareto_front([(100, 10.0), (50, 8.0), (120, 9.0), (60, 7.0)]) == [
        True,
        True,
        False,
        False,
    ]


def test_equal_points_are_on_the_front_together():
    assert pareto_front([(50, 8.0), (50, 8.0), (100, 10.0)]) == [True, True, True]


@pytest.mark.parametrize("beaten", [(100, 9.0), (101, 10.0)])
def test_as_good_in_one_number_and_worse_in_the_other_is_beaten(beaten):
    assert pareto_front([(100, 10.0), beaten]) == [True, False]


@pytest.mark.parametrize("unknown", [(None, 99.0), (1, None), (None, None)])
def test_a_point_of_which_a_number_is_unknown_neither_is_on_the_front_nor_beats_another(unknown):
    assert pareto_front([unknown, (100, 10.0)]) == [False, True]


def test_without_points_there_is_no_front():
    assert pareto_front([]) == []


def test_the_front_does_not_depend_on_the_order():
    points = [(n * 37 % 101, float(n * 53 % 97)) for n in range(60)]
    front = dict(zip(points, pareto_front(points), strict=True))
    backwards = points[::-1]
    assert dict(zip(backwards, pareto_front(backwards), strict=True)) == front
    for peak, speed in points:
        beaten = any(
            other_peak <= peak
            and other_speed >= speed
            and (other_peak, other_speed) != (peak, speed)
            for other_peak, other_speed in points
        )
        assert front[peak, speed] is not beaten
