"""Which rank owns which elements of a model's parameters, as DeepSpeed's stages cut them.

Pure arithmetic. Stages 1 and 2 lay all trainable parameters into one flat group, padded to a
multiple of 2N, and cut it into N equal partitions wherever the cuts fall; stage 3 pads and cuts
every parameter by itself.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py:448 (alignment) and :2580
(`get_partition_info`); runtime/zero/partition_parameters.py:1690 (`_aligned_size`).
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from orchestrator.forecast.profile import ModelProfile

N_PIECES = 4096
"""Into how many equal pieces a model is thought to fall of which only the size is known: enough
that no piece matters. Every rank has the same number of them, and 4 at least."""


class Slice(NamedTuple):
    """A stretch of one parameter's elements that belongs to one rank."""

    parameter: int
    """Index into the trainable parameters."""
    owner: int
    """Rank."""
    n_elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The elements of a model and how ranks share them."""

    n_ranks: int
    rank: int
    trainable: tuple[int, ...]
    """Elements of each trainable parameter, in the order of the model."""
    frozen: tuple[int, ...]
    """Elements of each that is not trained."""
    counted: bool
    """Only the model's size is known; its parameters are equal pieces."""

    @property
    def n_trainable(self) -> int:
        """P."""
        return sum(self.trainable)

    @property
    def n_frozen(self) -> int:
        """Elements that are not trained."""
        return sum(self.frozen)

    @property
    def flat_elements(self) -> int:
        """Stages 1 and 2: the flat group with its padding."""
        return _padded(self.n_trainable, 2 * self.n_ranks)

    @property
    def partition_elements(self) -> int:
        """Stages 1 and 2: one rank's share of the flat group."""
        return self.flat_elements // self.n_ranks

    @property
    def shards(self) -> tuple[int, ...]:
        """Stage 3: elements of each trainable parameter's shard."""
        return tuple(shard_elements(n, self.n_ranks) for n in self.trainable)

    @property
    def frozen_shard_elements(self) -> int:
        """Stage 3: elements of all shards that are not trained."""
        return sum(shard_elements(n, self.n_ranks) for n in self.frozen)

    @property
    def largest_elements(self) -> int:
        """Elements of the largest trainable parameter; 0 where that is not known."""
        return 0 if self.counted else max(self.trainable, default=0)

    @property
    def owned(self) -> tuple[Slice, ...]:
        """Stages 1 and 2: the stretches in this rank's partition."""
        return tuple(s for s in self.slices(range(len(self.trainable))) if s.owner == self.rank)

    @property
    def touched_elements(self) -> int:
        """Stages 1 and 2: elements of all parameters that reach into this rank's partition."""
        return sum(self.trainable[piece.parameter] for piece in self.owned)

    def slices(self, parameters: Iterable[int]) -> Iterator[Slice]:
        """Stages 1 and 2: cut parameters where the partitions are cut."""
        starts = self._starts()
        size = self.partition_elements
        for parameter in parameters:
            start, end = starts[parameter], starts[parameter] + self.trainable[parameter]
            while start < end:
                owner = start // size
                stop = min(end, (owner + 1) * size)
                yield Slice(parameter, owner, stop - start)
                start = stop

    def sub_groups(self, most_elements: int) -> tuple[int, ...]:
        """Stage 3: elements of the shards that are updated together.

        Source:
            deepspeed 0.19.8, runtime/zero/stage3.py, `_create_fp16_sub_groups`.
        """
        groups, current = [], 0
        for n_elements in self.shards:
            current += n_elements
            if current >= most_elements:
                groups.append(current)
                current = 0
        return (*groups, current) if current else tuple(groups)

    def _starts(self) -> list[int]:
        starts, at = [], 0
        for n_elements in self.trainable:
            starts.append(at)
            at += n_elements
        return starts


def layout_of(
    profile: ModelProfile | None, *, n_params: int | None, n_ranks: int, rank: int
) -> Layout:
    """Lay out a model.

    Args:
        profile: its parameters; `None` if they are not known.
        n_params: without a profile, how many trainable elements there are.
        n_ranks: N, at least 1.
        rank: whose share is looked at, 0 to N - 1.

    Raises:
        ValueError: there is neither a profile nor a count, or no such rank.
    """
    if not 0 <= rank < n_ranks:
        raise ValueError(f"rank {rank} is not one of {n_ranks} ranks")
    if profile is not None:
        return Layout(
            n_ranks=n_ranks,
            rank=rank,
            trainable=tuple(p.n_elements for p in profile.parameters if p.trainable),
            frozen=tuple(p.n_elements for p in profile.parameters if not p.trainable),
            counted=False,
        )
    if n_params is None:
        raise ValueError("a profile or the number of parameters is needed")
    return Layout(
        n_ranks=n_ranks,
        rank=rank,
        trainable=tuple(_pieces(n_params, n_ranks)),
        frozen=(),
        counted=True,
    )


def _pieces(n_params: int, n_ranks: int) -> Iterator[int]:
    """Cut a model into pieces that no rank's share falls across, as far as that can be."""
    share, rest = divmod(n_params, n_ranks)
    n_pieces = min(share, n_ranks * max(4, N_PIECES // n_ranks))
    cuts = [share * index // n_pieces for index in range(n_pieces + 1)] if n_pieces else []
    yield from (n_ranks * (end - start) for start, end in pairwise(cuts))
    if rest:
        yield rest


def shard_elements(n_elements: int, n_ranks: int) -> int:
    """Elements of one rank's shard of a parameter."""
    return math.ceil(n_elements / n_ranks)


def _padded(n_elements: int, multiple: int) -> int:
    return math.ceil(n_elements / multiple) * multiple
