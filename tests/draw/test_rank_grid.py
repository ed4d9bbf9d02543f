import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.draw.rank_grid import RankGrid, binned, sample_grid, step_time_grid
from tests.draw.runs import rank_sample


def grid(*rows, steps=None):
    steps = steps or range(1, len(rows[0]) + 1)
    return RankGrid(steps=steps, ranks=range(len(rows)), values=rows)


def bins_of(told, *, max_columns=400):
    bins = binned(told, max_columns=max_columns)
    assert bins is not None
    return bins


def test_a_grid_has_a_row_a_rank_and_a_value_a_step():
    samples = [
        rank_sample(rank, step, step_s=rank + step / 10) for step in (1, 2) for rank in (1, 0)
    ]
    told = step_time_grid(samples)
    assert (told.ranks, told.steps) == ([0, 1], [1, 2])
    assert told.values == [[0.1, 0.2], [1.1, 1.2]]


def test_probe_steps_have_no_time():
    told = step_time_grid([rank_sample(0, 1), rank_sample(0, 2, probe=True)])
    assert told.values == [[0.5, None]]


def test_a_step_that_a_rank_did_not_report_is_unknown():
    told = step_time_grid([rank_sample(0, 1), rank_sample(0, 2), rank_sample(1, 1)])
    assert told.values == [[0.5, 0.5], [0.5, None]]


def test_of_a_repeated_step_the_last_one_stays():
    told = step_time_grid([rank_sample(0, 1, step_s=9.0), rank_sample(0, 1, step_s=1.0)])
    assert told.values == [[1.0]]


def test_any_quantity_makes_a_grid():
    told = sample_grid([rank_sample(host_bytes=7)], value=lambda sample: sample.host_bytes)
    assert told.values == [[7]]


def test_few_steps_have_a_column_each():
    bins = bins_of(grid([1.0, None, 3.0]))
    assert bins.steps_per_column == 1
    np.testing.assert_array_equal(bins.values, [[1.0, math.nan, 3.0]])


def test_a_column_is_the_median_of_what_is_known():
    bins = bins_of(grid([1.0, 9.0, 2.0, None, 4.0, 6.0, 8.0]), max_columns=3)
    assert bins.steps_per_column == 3
    # Of 1, 9, 2; of 4 and 6 without the unknown; of 8 alone.
    np.testing.assert_array_equal(bins.values, [[2.0, 5.0, 8.0]])


def test_a_column_without_any_known_value_is_unknown():
    bins = bins_of(grid([None, None, 1.0, 3.0], [1.0, 1.0, None, None]), max_columns=2)
    np.testing.assert_array_equal(bins.values, [[math.nan, 2.0], [1.0, math.nan]])


def test_what_is_not_finite_is_unknown():
    bins = bins_of(grid([math.inf, 1.0, math.nan]), max_columns=9)
    np.testing.assert_array_equal(bins.values, [[math.nan, 1.0, math.nan]])


def test_steps_reported_now_and_then_leave_no_stripes():
    bins = bins_of(grid([1.0, 2.0, 3.0], steps=[10, 20, 30]))
    assert bins.first_step == 10
    np.testing.assert_array_equal(bins.values, [[1.0, 2.0, 3.0]])


def test_a_hole_between_steps_stays_a_hole():
    bins = bins_of(grid([1.0, 2.0, 4.0], steps=[1, 2, 4]))
    np.testing.assert_array_equal(bins.values, [[1.0, 2.0, math.nan, 4.0]])


@pytest.mark.parametrize("empty", [grid([None, None]), RankGrid(steps=[], ranks=[], values=[])])
def test_a_grid_without_any_known_value_has_no_bins(empty):
    assert binned(empty, max_columns=400) is None


@given(
    steps=st.sets(st.integers(1, 5000), min_size=1, max_size=60).map(sorted),
    max_columns=st.integers(1, 50),
)
def test_no_value_is_lost_and_columns_are_not_too_many(steps, max_columns):
    bins = bins_of(grid([float(step) for step in steps], steps=steps), max_columns=max_columns)
    assert bins.values.shape[1] <= max_columns
    columns = {(step - steps[0]) // bins.steps_per_column for step in steps}
    assert set(np.flatnonzero(np.isfinite(bins.values[0]))) == columns


def test_a_grid_that_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="ascend"):
        grid([1.0, 2.0], steps=[2, 1])
    with pytest.raises(ValueError, match="1 rows for 2 ranks"):
        RankGrid(steps=[1], ranks=[0, 1], values=[[1.0]])
    with pytest.raises(ValueError, match="must have 2 values"):
        RankGrid(steps=[1, 2], ranks=[0], values=[[1.0]])
    with pytest.raises(ValueError, match="at least 1"):
        binned(grid([1.0]), max_columns=0)
