import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.split import held_out


def test_every_fifth_sample_is_held_out():
    assert np.flatnonzero(held_out(15, fraction=0.2)).tolist() == [4, 9, 14]


@given(n_samples=st.integers(2, 500), fraction=st.floats(1e-9, 1, exclude_max=True))
def test_neither_part_is_ever_empty(n_samples, fraction):
    mask = held_out(n_samples, fraction=fraction)
    assert len(mask) == n_samples
    assert 1 <= mask.sum() <= n_samples - 1


@given(n_samples=st.integers(10, 500), percent=st.integers(10, 90))
def test_the_share_held_out_is_the_fraction_rounded_down(n_samples, percent):
    assert held_out(n_samples, fraction=percent / 100).sum() == n_samples * percent // 100


@given(n_samples=st.integers(20, 500), percent=st.integers(10, 50))
def test_samples_are_held_out_at_equal_distances(n_samples, percent):
    distances = np.diff(np.flatnonzero(held_out(n_samples, fraction=percent / 100)))
    assert distances.size == 0 or distances.max() - distances.min() <= 1


def test_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="1 samples cannot be split"):
        held_out(1, fraction=0.5)
