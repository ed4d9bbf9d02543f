import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.order import eval_batches, micro_batches, step_indices

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


@given(n_samples=sizes, batch=sizes, seed=seeds, n_epochs=st.integers(1, 3))
def test_every_sample_comes_once_in_every_epoch(n_samples, batch, seed, n_epochs):
    n_steps = -(-n_epochs * n_samples // batch)
    line = np.concatenate(
        [
            step_indices(n_samples, seed=seed, step=step, global_batch_size=batch)
            for step in range(n_steps)
        ]
    )
    for epoch in range(n_epochs):
        of_epoch = line[epoch * n_samples : (epoch + 1) * n_samples]
        assert sorted(of_epoch) == list(range(n_samples))


@given(n_samples=sizes, seed=seeds, small=sizes, factor=st.integers(1, 5), step=st.integers(0, 9))
def test_a_step_of_a_larger_batch_is_several_steps_of_a_smaller_one(
    n_samples, seed, small, factor, step
):
    large = step_indices(n_samples, seed=seed, step=step, global_batch_size=small * factor)
    pieces = [
        step_indices(n_samples, seed=seed, step=step * factor + i, global_batch_size=small)
        for i in range(factor)
    ]
    assert large.tolist() == np.concatenate(pieces).tolist()


def test_a_batch_larger_than_the_set_spans_epochs():
    indices = step_indices(3, seed=0, step=0, global_batch_size=8)
    assert len(indices) == 8
    assert sorted(indices[:3]) == sorted(indices[3:6]) == [0, 1, 2]


def test_epochs_and_seeds_differ_in_order():
    first, second = (step_indices(100, seed=0, step=step, global_batch_size=100) for step in (0, 1))
    other_seed = step_indices(100, seed=1, step=0, global_batch_size=100)
    assert first.tolist() != second.tolist()
    assert first.tolist() != other_seed.tolist()


def test_an_order_cannot_be_spoilt_by_its_reader():
    indices = step_indices(10, seed=0, step=0, global_batch_size=10)
    with pytest.raises(ValueError, match="read-only"):
        indices[0] = 5


@given(micro=st.integers(1, 4), world=st.integers(1, 4), accumulation=st.integers(1, 4), seed=seeds)
def test_ranks_and_micro_batches_together_are_the_step(micro, world, accumulation, seed):
    batch = micro * world * accumulation
    step = step_indices(50, seed=seed, step=2, global_batch_size=batch)
    ranks = [
        micro_batches(step, rank=rank, world_size=world, micro_batch_size=micro)
        for rank in range(world)
    ]
    laid_out = [ranks[rank][a] for a in range(accumulation) for rank in range(world)]
    assert np.concatenate(laid_out).tolist() == step.tolist()


def test_one_rank_and_its_micro_batches_by_hand():
    step = np.arange(12)
    parts = micro_batches(step, rank=1, world_size=3, micro_batch_size=2)
    assert [part.tolist() for part in parts] == [[2, 3], [8, 9]]


@pytest.mark.parametrize(("rank", "micro"), [(0, 5), (0, 0)])
def test_a_step_that_does_not_divide_is_refused(rank, micro):
    with pytest.raises(ValueError, match="do not divide"):
        micro_batches(np.arange(12), rank=rank, world_size=2, micro_batch_size=micro)


def test_a_rank_beyond_the_world_is_refused():
    with pytest.raises(ValueError, match="no rank 2 among 2"):
        micro_batches(np.arange(12), rank=2, world_size=2, micro_batch_size=2)


@pytest.mark.parametrize(
    "values",
    [
        {"n_samples": 0, "seed": 0, "step": 0, "global_batch_size": 1},
        {"n_samples": 1, "seed": 0, "step": 0, "global_batch_size": 0},
        {"n_samples": 1, "seed": 0, "step": -1, "global_batch_size": 1},
        {"n_samples": 1, "seed": -1, "step": 0, "global_batch_size": 1},
    ],
)
def test_an_order_of_nothing_is_refused(values):
    n_samples = values.pop("n_samples")
    with pytest.raises(ValueError, match="no order for"):
        step_indices(n_samples, **values)


@given(n_samples=sizes, world=st.integers(1, 5), batch=st.integers(1, 9))
def test_evaluation_counts_every_sample_once_and_keeps_ranks_in_step(n_samples, world, batch):
    ranks = [
        eval_batches(n_samples, rank=rank, world_size=world, batch_size=batch)
        for rank in range(world)
    ]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(indices) == batch for batches in ranks for indices, _ in batches)
    counted = [
        number for batches in ranks for indices, n_real in batches for number in indices[:n_real]
    ]
    assert sorted(counted) == list(range(n_samples))


def test_evaluation_takes_no_more_batches_than_it_needs():
    assert len(eval_batches(16, rank=0, world_size=2, batch_size=8)) == 1
    assert len(eval_batches(17, rank=0, world_size=2, batch_size=8)) == 2
    assert [n for _, n in eval_batches(17, rank=1, world_size=2, batch_size=8)] == [8, 0]


def test_evaluation_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no batches of 8 from 0 samples"):
        eval_batches(0, rank=0, world_size=1, batch_size=8)
