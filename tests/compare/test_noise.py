import math
from statistics import median

import numpy as np
import pytest

from orchestrator.compare.noise import ratio_to, throughput

STEADY = ((100.0, 101.0, 99.0, 100.0, 102.0, 98.0),)


def noisy_rounds(rng, *, n_rounds=3, n_steps=10, scatter=0.1, alike=0.5, drift=0.04, speed=100.0):
    """Rounds on a noisy machine: steps like their neighbours, each round at a speed of its own."""
    rounds = []
    for _ in range(n_rounds):
        level, noise = drift * rng.standard_normal(), rng.standard_normal()
        steps = []
        for _ in range(n_steps):
            steps.append(speed * math.exp(level + scatter * noise))
            noise = alike * noise + math.sqrt(1 - alike**2) * rng.standard_normal()
        rounds.append(tuple(steps))
    return tuple(rounds)


def test_throughput_is_the_median_of_all_steps_of_all_rounds():
    found = throughput(((1.0, 2.0), (3.0, 4.0, 5.0)))
    assert found is not None
    assert (found.samples_per_s, found.quartiles) == (3.0, (2.0, 4.0))


@pytest.mark.parametrize("rounds", [(), ((),), ((), ())])
def test_without_a_measured_step_there_is_no_throughput(rounds):
    assert throughput(rounds) is None


def test_a_round_without_steps_counts_for_nothing():
    assert throughput(((), *STEADY)) == throughput(STEADY)
    assert ratio_to(((), *STEADY), (*STEADY, *STEADY)) == ratio_to(STEADY, STEADY)


@pytest.mark.parametrize("rounds", [((7.0,),), ((7.0, 7.0, 7.0),), ((7.0, 7.0), (7.0, 7.0))])
def test_steps_that_are_all_equal_leave_no_doubt(rounds):
    found = throughput(rounds)
    assert found is not None
    assert found.quartiles == found.interval == (7.0, 7.0)


def test_the_interval_is_around_the_median_and_within_the_steps():
    found = throughput(STEADY)
    assert found is not None
    assert 98.0 <= found.interval[0] <= found.samples_per_s == 100.0 <= found.interval[1] <= 102.0


def test_the_same_steps_give_the_same_bytes():
    rounds = noisy_rounds(np.random.default_rng(1))
    assert repr(throughput(rounds)) == repr(throughput(rounds))
    assert repr(ratio_to(rounds, rounds[::-1])) == repr(ratio_to(rounds, rounds[::-1]))


def test_steps_that_are_like_their_neighbours_tell_less():
    slow_and_fast = [80.0 + n % 7 for n in range(32)] + [120.0 + n % 7 for n in range(33)]
    shuffled = np.random.default_rng(2).permutation(slow_and_fast).tolist()
    alike, independent = throughput((slow_and_fast,)), throughput((shuffled,))
    assert alike is not None
    assert independent is not None
    assert alike.samples_per_s == independent.samples_per_s
    width = independent.interval[1] - independent.interval[0]
    assert alike.interval[1] - alike.interval[0] > width


def test_rounds_that_are_far_apart_tell_less_than_the_same_steps_dealt_out_evenly():
    rounds = [[level + n / 10 for n in range(30)] for level in (90.0, 100.0, 110.0)]
    steps = np.random.default_rng(6).permutation(np.ravel(rounds))
    apart, even = throughput(rounds), throughput(steps.reshape(3, 30).tolist())
    assert apart is not None
    assert even is not None
    assert apart.samples_per_s == even.samples_per_s
    width = even.interval[1] - even.interval[0]
    assert apart.interval[1] - apart.interval[0] > width


def test_the_ratio_is_the_geometric_mean_of_the_ratios_of_rounds():
    found = ratio_to(((2.0, 2.0, 9.0), (8.0,)), ((1.0,), (1.0, 1.0)))
    assert found is not None
    assert found.ratio == pytest.approx(4.0)


def test_a_slow_minute_that_hits_both_does_not_blur_the_ratio():
    def at(speed):
        return tuple(speed * (1 + n / 1000) for n in range(10))

    mine, baseline = (at(125.0), at(60.0), at(90.0)), (at(100.0), at(48.0), at(72.0))
    beside = ratio_to(mine, baseline)
    crossed = ratio_to(mine, (baseline[1], baseline[2], baseline[0]))
    assert beside is not None
    assert crossed is not None
    assert beside.ratio == pytest.approx(1.25)
    assert beside.difference_shown
    # The same steps, but no longer those of the same minute.
    assert crossed.ratio == pytest.approx(1.25)
    assert not crossed.difference_shown


def test_only_the_rounds_that_both_ran_count():
    assert ratio_to((*STEADY, (500.0,)), STEADY) == ratio_to(STEADY, STEADY)
    assert ratio_to(STEADY, ()) is None
    assert ratio_to(((1.0,), ()), ((), (1.0,))) is None


def test_seen_from_the_other_side_the_ratio_is_the_inverse():
    rng = np.random.default_rng(3)
    one, other = noisy_rounds(rng), noisy_rounds(rng, speed=130.0)
    there, back = ratio_to(one, other), ratio_to(other, one)
    assert there is not None
    assert back is not None
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.interval[0] * back.interval[1] == pytest.approx(1)
    assert there.interval[1] * back.interval[0] == pytest.approx(1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_twice_the_speed_is_shown_by_one_short_round(factor):
    found = ratio_to(tuple(tuple(factor * step for step in part) for part in STEADY), STEADY)
    assert found is not None
    assert found.ratio == pytest.approx(factor)
    assert found.difference_shown


def test_a_single_step_of_each_does_not_show_that_one_is_a_fifth_faster():
    found = ratio_to(((120.0,),), ((100.0,),))
    assert found is not None
    assert not found.difference_shown


def test_a_run_beside_itself_shows_no_difference():
    found = ratio_to(STEADY, STEADY)
    assert found is not None
    assert found.ratio == 1.0
    assert not found.difference_shown


def test_more_rounds_of_the_same_say_more():
    widths = []
    for n_rounds in (1, 2, 3, 5):
        found = ratio_to(STEADY * n_rounds, STEADY * n_rounds)
        assert found is not None
        widths.append(found.interval[1] - found.interval[0])
    assert widths == sorted(widths, reverse=True)


def test_a_strategy_is_seldom_found_to_differ_from_itself():
    rng = np.random.default_rng(4)
    found = [ratio_to(noisy_rounds(rng), noisy_rounds(rng)) for _ in range(60)]
    covered = [r.interval[0] <= 1 <= r.interval[1] for r in found if r is not None]
    assert len(covered) == 60
    assert sum(covered) >= 0.93 * 60


def test_a_fifth_more_speed_is_mostly_shown_by_three_rounds_of_ten_steps():
    rng = np.random.default_rng(5)
    found = [ratio_to(noisy_rounds(rng, speed=120.0), noisy_rounds(rng)) for _ in range(40)]
    known = [ratio for ratio in found if ratio is not None]
    assert sum(ratio.difference_shown for ratio in known) > 24
    assert median(ratio.ratio for ratio in known) == pytest.approx(1.2, rel=0.05)
