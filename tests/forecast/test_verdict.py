from itertools import product

import pytest

from orchestrator.forecast.verdict import Interval, Verdict, around, in_words, judge, worse
from orchestrator.units import GIB

NEEDED = Interval(low=80, expected=100, high=120)


def test_an_interval_reaches_as_far_as_its_ratios_say_and_is_rounded_outwards():
    # A quarter below and half above, which floating point has exactly.
    assert around(8, below_ratio=0.25, above_ratio=0.5) == Interval(low=6, expected=8, high=12)
    assert around(10, below_ratio=0.25, above_ratio=0.25) == Interval(low=7, expected=10, high=13)


def test_an_interval_without_ratios_is_a_point():
    assert around(7, below_ratio=0, above_ratio=0) == Interval(low=7, expected=7, high=7)


def test_something_between_two_ends_is_added_at_both_and_in_its_middle():
    assert NEEDED.plus(10, 30) == Interval(low=90, expected=120, high=150)
    assert NEEDED.plus(5, 5) == Interval(low=85, expected=105, high=125)
    # Half a byte is none.
    assert NEEDED.plus(0, 1) == Interval(low=80, expected=100, high=121)


@pytest.mark.parametrize(
    ("budget_bytes", "verdict"),
    [
        (1000, Verdict.FITS),
        (120, Verdict.FITS),
        (119, Verdict.TIGHT),
        (100, Verdict.TIGHT),
        (99, Verdict.TOO_BIG),
        (0, Verdict.TOO_BIG),
    ],
)
def test_only_what_fits_up_to_its_upper_end_fits(budget_bytes, verdict):
    assert judge(NEEDED, budget_bytes=budget_bytes) is verdict


def test_the_lower_end_makes_nothing_fit():
    hopeful = Interval(low=1, expected=100, high=120)
    assert judge(hopeful, budget_bytes=99) is Verdict.TOO_BIG


def test_of_two_verdicts_the_less_hopeful_one_is_worse_in_either_order():
    from_best = [Verdict.FITS, Verdict.TIGHT, Verdict.TOO_BIG]
    for (i, one), (j, other) in product(enumerate(from_best), repeat=2):
        assert worse(one, other) is from_best[max(i, j)]


def test_words_tell_what_is_expected_its_upper_end_and_the_share_of_what_there_is():
    needed = Interval(low=GIB, expected=3 * GIB // 2, high=2 * GIB)
    assert in_words(needed, budget_bytes=3 * GIB, of="of the budget") == (
        "1.5 GiB, up to 2.0 GiB of 3.0 GiB of the budget (50.0%)"
    )


def test_an_upper_end_that_reads_the_same_is_left_out():
    needed = Interval(low=1000, expected=1000, high=1004)
    assert in_words(needed, budget_bytes=2000, of="of it") == "1000 B of 2.0 KiB of it (50.0%)"


def test_a_budget_of_nothing_is_told_and_not_divided_by():
    assert in_words(NEEDED, budget_bytes=0, of="of it") == "100 B, up to 120 B of 0 B of it (inf%)"
