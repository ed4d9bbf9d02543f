import pytest

from orchestrator.forecast.layout import Slice, layout_of, shard_elements
from tests.forecast.strategies import layered_profile


def layout(sizes, *, n_ranks=2, rank=0):
    return layout_of(layered_profile(sizes), n_params=None, n_ranks=n_ranks, rank=rank)


def test_partitions_are_cut_wherever_the_cuts_fall():
    # 10 elements are padded to 12: six a rank, so the second parameter lies in both.
    assert list(layout((4, 5, 1)).slices([0, 1, 2])) == [
        Slice(0, 0, 4),
        Slice(1, 0, 2),
        Slice(1, 1, 3),
        Slice(2, 1, 1),
    ]


@pytest.mark.parametrize(("rank", "touched"), [(0, 4 + 5), (1, 5 + 1)])
def test_a_rank_touches_the_whole_of_a_parameter_that_it_owns_in_part(rank, touched):
    assert layout((4, 5, 1), rank=rank).touched_elements == touched


def test_a_parameter_may_lie_on_many_ranks():
    assert [s.owner for s in layout((100,), n_ranks=4).slices([0])] == [0, 1, 2, 3]


@pytest.mark.parametrize(("n_elements", "n_ranks", "shard"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_a_shard_is_rounded_up(n_elements, n_ranks, shard):
    assert shard_elements(n_elements, n_ranks) == shard


def test_a_sub_group_ends_with_the_parameter_that_fills_it():
    # Shards of 5, 5, 5 and 1: at least 6 together.
    assert layout((10, 10, 10, 2)).sub_groups(6) == (10, 6)
    assert layout((10, 10, 10, 2)).sub_groups(10**9) == (16,)


@pytest.mark.parametrize("n_ranks", [1, 2, 7, 64, 1024])
def test_of_a_model_that_is_only_counted_every_rank_has_an_equal_share(n_ranks):
    n_params = 7_000_000
    counted = layout_of(None, n_params=n_params, n_ranks=n_ranks, rank=n_ranks - 1)
    assert counted.n_trainable == n_params
    assert counted.touched_elements == pytest.approx(n_params / n_ranks, rel=0.05)
    assert counted.largest_elements == 0


def test_a_rank_must_be_one_of_them():
    with pytest.raises(ValueError, match="rank 2 is not one of 2 ranks"):
        layout((1,), rank=2)


def test_a_layout_needs_a_model():
    with pytest.raises(ValueError, match="a profile or the number"):
        layout_of(None, n_params=None, n_ranks=2, rank=0)
