import math

import pytest

from orchestrator.plan.schedule import learning_rate
from orchestrator.spec.sections import ScheduleSection


def rates(total_steps, *, peak_lr=1.0, **schedule):
    section = ScheduleSection(**schedule)
    return [
        learning_rate(step, total_steps=total_steps, peak_lr=peak_lr, schedule=section)
        for step in range(1, total_steps + 1)
    ]


def test_a_constant_rate_does_not_move():
    assert rates(4, peak_lr=0.3) == [0.3] * 4


def test_the_warm_up_climbs_in_equal_steps_and_ends_at_the_peak():
    assert rates(6, peak_lr=2.0, warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_linear_falls_in_equal_steps_and_would_reach_zero_one_step_after_the_last():
    assert rates(4, name="linear") == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_linear_after_a_warm_up_falls_from_the_peak():
    expected = [0.5, 1.0, 0.75, 0.5, 0.25]
    assert rates(5, name="linear", warmup_steps=2) == pytest.approx(expected)


def test_linear_falls_to_the_share_of_the_peak_that_is_asked_for():
    expected = [2 * (0.5 + 0.5 * left) for left in (0.8, 0.6, 0.4, 0.2)]
    assert rates(4, name="linear", peak_lr=2.0, min_lr_ratio=0.5) == pytest.approx(expected)


def test_cosine_is_half_a_cosine():
    # a half cosine at 1/4, 2/4 and 3/4 of its length
    root = math.sqrt(2) / 2
    assert rates(3, name="cosine") == pytest.approx([(1 + root) / 2, 0.5, (1 - root) / 2])


def test_cosine_after_a_warm_up_with_a_floor():
    root = math.sqrt(2) / 2
    falling = [0.1 + 0.9 * left for left in ((1 + root) / 2, 0.5, (1 - root) / 2)]
    expected = [0.5, 1.0, *falling]
    assert rates(5, name="cosine", warmup_steps=2, min_lr_ratio=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 1, 7, 20])
def test_no_step_is_taken_at_zero_or_above_the_peak(name, warmup_steps):
    seen = rates(20, name=name, warmup_steps=warmup_steps, peak_lr=0.1)
    assert all(0 < rate <= 0.1 for rate in seen)
    after = seen[max(warmup_steps - 1, 0) :]
    assert after == sorted(after, reverse=True)
