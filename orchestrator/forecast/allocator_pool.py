"""A Pool of torch's caching allocator: its blocks, how one is chosen, cut, freed and merged.

Pure arithmetic on made-up addresses, for one stream. The rules and their order are those of torch
2.13.0, c10/cuda/CUDACachingAllocator.cpp; each method names the function that it follows.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass

from orchestrator.forecast.allocator_settings import (
    MIN_BLOCK_BYTES,
    SMALL_BYTES,
    SMALL_SEGMENT_BYTES,
    AllocatorSettings,
)

IN_USE, CACHED, UNMAPPED = range(3)
"""What a block is: given out; free and backed by memory; addresses with no memory behind them."""

NO_LIMIT_BYTES = 1 << 59
"""More than any size; also how far an expandable segment can grow."""
_ADDRESS_BITS = 60


@dataclass(slots=True, eq=False)
class Block:
    """A stretch of a segment."""

    address: int
    n_bytes: int
    before: "Block | None"
    """The block below it in the same segment."""
    after: "Block | None"
    state: int = IN_USE
    requested_bytes: int = 0
    """What was asked for, of a block in use."""


class Pool:
    """The small or the large blocks.

    Args:
        settings: of the allocator.
        is_small: which of the two.
    """

    def __init__(self, settings: AllocatorSettings, *, is_small: bool) -> None:
        self.expandable = settings.expandable_segments
        self.page_bytes = SMALL_SEGMENT_BYTES if is_small else settings.large_segment_bytes
        self.reserved_bytes = 0
        self.n_segments = 0
        self.unmapped: list[Block] = []
        """By address; only expandable segments have any."""
        # Of sizes and addresses in one number, for a tuple takes twice as long to compare.
        self._keys: list[int] = []
        self._cached: dict[int, Block] = {}
        self._next_address = 0
        limit_bytes = settings.max_split_size_bytes
        self._oversize_bytes = NO_LIMIT_BYTES if limit_bytes is None else limit_bytes
        self._slack_bytes = settings.max_non_split_rounding_bytes or settings.large_segment_bytes
        always_splits = is_small or self.expandable
        self._least_rest_bytes = MIN_BLOCK_BYTES if always_splits else SMALL_BYTES + 1
        self._unsplit_from_bytes = NO_LIMIT_BYTES if always_splits else self._oversize_bytes

    def take(self, n_bytes: int) -> Block | None:
        """Take the best cached block for a request out of the cache.

        Follows `get_free_block`: the smallest that is large enough, of equals the lowest address.
        """
        keys = self._keys
        at = bisect_left(keys, n_bytes << _ADDRESS_BITS)
        if at == len(keys):
            return None
        if self.expandable:
            at = self._least_expandable(at)
        block = self._cached[keys[at]]
        if block.n_bytes >= self._oversize_bytes and (
            n_bytes < self._oversize_bytes or block.n_bytes >= n_bytes + self._slack_bytes
        ):
            return None
        del self._cached[keys.pop(at)]
        return block

    def cut(self, block: Block, n_bytes: int) -> Block:
        """Give out a block that was taken; what it has too much goes back if that is worth it.

        Follows `should_split` and `alloc_found_block`.
        """
        rest_bytes = block.n_bytes - n_bytes
        if rest_bytes < self._least_rest_bytes or n_bytes >= self._unsplit_from_bytes:
            block.state = IN_USE
            return block
        head = Block(block.address, n_bytes, block.before, block)
        if block.before is not None:
            block.before.after = head
        block.before = head
        block.address += n_bytes
        block.n_bytes = rest_bytes
        self.add(block)
        return head

    def free(self, block: Block) -> None:
        """Put a block into the cache, as one with its cached neighbours.

        Follows `free_block` and `try_merge_blocks`.
        """
        before, after = block.before, block.after
        if before is not None and before.state == CACHED:
            self.remove(before)
            absorb(block, before)
        if after is not None and after.state == CACHED:
            self.remove(after)
            absorb(block, after)
        self.add(block)

    def add(self, block: Block) -> None:
        """Put a block into the cache as it is."""
        block.state = CACHED
        key = block.n_bytes << _ADDRESS_BITS | block.address
        insort(self._keys, key)
        self._cached[key] = block

    def remove(self, block: Block) -> None:
        """Take a certain block out of the cache."""
        key = block.n_bytes << _ADDRESS_BITS | block.address
        del self._keys[bisect_left(self._keys, key)]
        del self._cached[key]

    def cached(self) -> list[Block]:
        """All cached blocks by size and address."""
        return [self._cached[key] for key in self._keys]

    def add_segment(self, n_bytes: int) -> Block:
        """Get a segment from CUDA, as one block that is taken."""
        block = Block(self._next_address, n_bytes, None, None)
        self._next_address += n_bytes
        self.reserved_bytes += n_bytes
        self.n_segments += 1
        return block

    def release_unsplit(self) -> None:
        """Give every cached segment that is one block back to CUDA.

        Follows `release_blocks`.
        """
        for block in self.cached():
            if block.before is None and block.after is None:
                self._release(block)

    def release_oversize(self, n_bytes: int) -> bool:
        """Give enough blocks that are never split back to CUDA for a request.

        Follows `release_available_cached_blocks`.

        Returns:
            Whether that is enough; without a size from which blocks are not split it never is.
        """
        if self._oversize_bytes == NO_LIMIT_BYTES or self.expandable:
            return False
        wanted_bytes = max(n_bytes, self._oversize_bytes)
        at = bisect_left(self._keys, wanted_bytes << _ADDRESS_BITS)
        if at < len(self._keys):
            self._release(self._cached[self._keys[at]])
            return True
        released_bytes = 0
        for block in reversed(self.cached()):
            if released_bytes >= wanted_bytes or block.n_bytes < self._oversize_bytes:
                break
            self._release(block)
            released_bytes += block.n_bytes
        return released_bytes >= wanted_bytes

    def _release(self, block: Block) -> None:
        self.remove(block)
        self.reserved_bytes -= block.n_bytes
        self.n_segments -= 1

    def _least_expandable(self, at: int) -> int:
        """From the best fit on, pass over blocks that could grow for longer than the next."""
        room_bytes = self._expandable_bytes(at)
        while at + 1 < len(self._keys):
            next_bytes = self._expandable_bytes(at + 1)
            if next_bytes >= room_bytes:
                break
            at, room_bytes = at + 1, next_bytes
        return at

    def _expandable_bytes(self, at: int) -> int:
        block = self._cached[self._keys[at]]
        after = block.after
        return block.n_bytes + (after.n_bytes if after and after.state == UNMAPPED else 0)


def absorb(block: Block, neighbour: Block) -> None:
    """Make a neighbour part of a block."""
    block.n_bytes += neighbour.n_bytes
    if neighbour is block.before:
        block.address = neighbour.address
        block.before = neighbour.before
        if block.before is not None:
            block.before.after = block
    else:
        block.after = neighbour.after
        if block.after is not None:
            block.after.before = block
