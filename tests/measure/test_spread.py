from orchestrator.measure.spread import SPREAD_BEYOND, spread
from orchestrator.measure.table import MAX_ROWS


def test_spread_is_largest_median_and_smallest_of_what_is_known():
    assert spread([3.0, None, 1.0, 10.0]) == {"max": 10, "median": 3, "min": 1}
    assert spread([4.0, 1.0]) == {"max": 4, "median": 2.5, "min": 1}


def test_of_nothing_known_there_is_no_spread():
    assert spread([None, None]) == {}


def test_charts_and_table_turn_to_the_spread_at_the_same_number_of_ranks():
    assert SPREAD_BEYOND == MAX_ROWS == 16
