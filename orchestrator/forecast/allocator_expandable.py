"""Expandable segments of a Pool: addresses without end, of which pages are mapped as needed.

Pure arithmetic. Follows torch 2.13.0, c10/cuda/CUDACachingAllocator.cpp. Simplified: a pool has one
segment and it never ends, where torch's is 9/8 of the device and is followed by another.
"""

from bisect import insort

from orchestrator.forecast.allocator_pool import (
    CACHED,
    IN_USE,
    NO_LIMIT_BYTES,
    UNMAPPED,
    Block,
    Pool,
    absorb,
)


def open_segment(pool: Pool) -> None:
    """Reserve the addresses, without memory."""
    pool.unmapped.append(Block(0, NO_LIMIT_BYTES, None, None, UNMAPPED))


def expand(pool: Pool, n_bytes: int, *, room_bytes: int) -> Block | None:
    """Map as many pages as a request lacks, at the lowest address where it fits.

    Follows `try_allocate_expandable_block`. Pages that were mapped before the room ran out stay.

    Args:
        pool: with an open segment.
        n_bytes: the request, rounded.
        room_bytes: what may be mapped.

    Returns:
        A block that is taken and large enough, or `None` where there is no room.
    """
    end_bytes = pool.reserved_bytes + room_bytes
    block = _lowest_fit(pool, n_bytes)
    if block.state == UNMAPPED and not _map(
        pool, block, min(n_bytes, block.n_bytes), room_bytes=room_bytes
    ):
        return None
    while block.n_bytes < n_bytes:
        hole = block.after
        assert hole is not None
        lacking_bytes = min(n_bytes - block.n_bytes, hole.n_bytes)
        if not _map(pool, hole, lacking_bytes, room_bytes=end_bytes - pool.reserved_bytes):
            return None
        block = hole
    pool.remove(block)
    return block


def unmap_cached(pool: Pool) -> None:
    """Give every page that lies whole in a cached block back to CUDA.

    Follows `release_blocks` and `unmap_block`.
    """
    page_bytes = pool.page_bytes
    for block in pool.cached():
        begin = -(-block.address // page_bytes) * page_bytes
        end = (block.address + block.n_bytes) // page_bytes * page_bytes
        if begin < end:
            pool.remove(block)
            _keep_ends(pool, block, begin=begin, end=end)
            _unmap(pool, block)


def _lowest_fit(pool: Pool, n_bytes: int) -> Block:
    """Where the lowest run of free addresses that is long enough begins.

    Follows `find_expandable_block`: a run holds at least one unmapped block, and begins with it or
    with the cached one below it.
    """
    for unmapped in pool.unmapped:
        before = unmapped.before
        start = before if before is not None and before.state == CACHED else unmapped
        if _run_bytes(start, n_bytes) >= n_bytes:
            return start
    raise AssertionError("the last unmapped block has no end")


def _run_bytes(start: Block, n_bytes: int) -> int:
    total_bytes, block = 0, start
    while total_bytes < n_bytes and block.state != IN_USE:
        total_bytes += block.n_bytes
        if block.after is None:
            break
        block = block.after
    return total_bytes


def _map(pool: Pool, block: Block, n_bytes: int, *, room_bytes: int) -> bool:
    """Put memory behind the first bytes of an unmapped block and cache them; `map_block`."""
    mapped_bytes = -(-n_bytes // pool.page_bytes) * pool.page_bytes
    if mapped_bytes > room_bytes:
        return False
    pool.unmapped.remove(block)
    if mapped_bytes < block.n_bytes:
        _split_off(block, mapped_bytes)
        assert block.after is not None
        _add_unmapped(pool, block.after)
    pool.reserved_bytes += mapped_bytes
    pool.n_segments = 1
    pool.free(block)
    return True


def _keep_ends(pool: Pool, block: Block, *, begin: int, end: int) -> None:
    """Leave in the cache what of a block lies outside whole pages."""
    if block.address < begin:
        head = Block(block.address, begin - block.address, block.before, block)
        if head.before is not None:
            head.before.after = head
        block.before = head
        block.n_bytes -= head.n_bytes
        block.address = begin
        pool.add(head)
    if end < block.address + block.n_bytes:
        _split_off(block, end - begin)
        assert block.after is not None
        pool.add(block.after)


def _unmap(pool: Pool, block: Block) -> None:
    pool.reserved_bytes -= block.n_bytes
    pool.n_segments = int(pool.reserved_bytes > 0)
    for neighbour in (block.before, block.after):
        if neighbour is not None and neighbour.state == UNMAPPED:
            pool.unmapped.remove(neighbour)
            absorb(block, neighbour)
    _add_unmapped(pool, block)


def _split_off(block: Block, n_bytes: int) -> None:
    """Make all of a block but its first bytes the block after it."""
    rest = Block(block.address + n_bytes, block.n_bytes - n_bytes, block, block.after)
    if rest.after is not None:
        rest.after.before = rest
    block.after = rest
    block.n_bytes = n_bytes


def _add_unmapped(pool: Pool, block: Block) -> None:
    block.state = UNMAPPED
    insort(pool.unmapped, block, key=lambda other: other.address)
