"""The order samples are seen in, whatever the workers, the micro-batch and the accumulation.

Epochs are permutations drawn from (seed, epoch) and laid end to end; a step takes the next
`global_batch_size` samples of that line. Pure arithmetic with numpy; touches nothing outside.
"""

from functools import lru_cache
from typing import Any

import numpy as np

IndexArray = np.ndarray[Any, np.dtype[np.int64]]


def step_indices(n_samples: int, *, seed: int, step: int, global_batch_size: int) -> IndexArray:
    """Say which samples an optimizer step takes, on all ranks together.

    Args:
        n_samples: Samples of the training set.
        seed: At least 0.
        step: From 0.
        global_batch_size: Samples a step; may be larger than the set.

    Returns:
        Sample numbers, `global_batch_size` of them. A step at the end of an epoch goes on with the
        next one.

    Raises:
        ValueError: A size is below 1, or seed or step below 0.
    """
    if min(n_samples, global_batch_size) < 1 or min(seed, step) < 0:
        raise ValueError(
            f"no order for {n_samples} samples, batch {global_batch_size}, seed {seed}, step {step}"
        )
    start = step * global_batch_size
    end = start + global_batch_size
    parts = [
        _epoch_order(n_samples, seed=seed, epoch=epoch)[
            max(start - epoch * n_samples, 0) : end - epoch * n_samples
        ]
        for epoch in range(start // n_samples, (end - 1) // n_samples + 1)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def micro_batches(
    indices: IndexArray, *, rank: int, world_size: int, micro_batch_size: int
) -> list[IndexArray]:
    """Cut one rank's micro-batches out of a step's samples.

    The step is laid out as [accumulation][rank][micro-batch], so that the first micro-batches of
    all ranks together are the first samples of the step.

    Args:
        indices: What `step_indices` gave.
        rank: This rank, from 0.
        world_size: Ranks.
        micro_batch_size: Samples a rank computes at once.

    Returns:
        One array for each accumulation step.

    Raises:
        ValueError: The step does not divide, or there is no such rank.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"no rank {rank} among {world_size}")
    if micro_batch_size < 1 or len(indices) % (world_size * micro_batch_size):
        raise ValueError(
            f"{len(indices)} samples do not divide into {world_size} ranks x {micro_batch_size}"
        )
    return list(indices.reshape(-1, world_size, micro_batch_size)[:, rank])


def eval_batches(
    n_samples: int, *, rank: int, world_size: int, batch_size: int
) -> list[tuple[IndexArray, int]]:
    """Share the evaluation set among ranks, every rank as many batches as any other.

    Stage 3 needs that: every forward pass is a collective.

    Args:
        n_samples: Samples of the evaluation set.
        rank: This rank, from 0.
        world_size: Ranks.
        batch_size: Samples a rank computes at once.

    Returns:
        Pairs of `batch_size` sample numbers and how many of them, from the front, count; the rest
        repeat samples that are counted elsewhere. The last pair of a rank may count none.

    Raises:
        ValueError: A size is below 1, or there is no such rank.
    """
    if min(n_samples, batch_size) < 1 or not 0 <= rank < world_size:
        raise ValueError(
            f"no batches of {batch_size} from {n_samples} samples for rank {rank} of {world_size}"
        )
    stride = world_size * batch_size
    starts = range(rank * batch_size, -(-n_samples // stride) * stride, stride)
    return [
        (
            np.arange(start, start + batch_size, dtype=np.int64) % n_samples,
            min(max(n_samples - start, 0), batch_size),
        )
        for start in starts
    ]


@lru_cache(maxsize=2)
def _epoch_order(n_samples: int, *, seed: int, epoch: int) -> IndexArray:
    order = np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n_samples)
    # It is shared by every later step of the epoch.
    order.flags.writeable = False
    return order
