"""What torch's caching allocator takes from a GPU for a trace of tensors: a simulation of it.

Pure arithmetic; imports no torch. Makes an AllocatorResult from requests and frees in their order.
Simplified: one stream, so a free is there for the next request; addresses rise with each segment;
no CUDA graphs, private pools or garbage collection; all that CUDA itself takes is not counted.

Source: torch 2.13.0, c10/core/AllocatorConfig.h as installed, and c10/cuda/CUDACachingAllocator.cpp
as of 2026 in public copies of pytorch/pytorch (ROCm/pytorch at 08b2238d, and a later one).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from orchestrator.forecast.allocator_expandable import expand, open_segment, unmap_cached
from orchestrator.forecast.allocator_pool import NO_LIMIT_BYTES, Block, Pool
from orchestrator.forecast.allocator_settings import SMALL_BYTES, AllocatorSettings

Event = tuple[int, int] | tuple[None, str]
"""A block's number and bytes: above 0 asks for the block, or makes one that is there larger by that
much; below 0 frees it, whatever the number; 0 is nothing. `None` and a name begin a phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorResult:
    """What the allocator held, at most."""

    requested_peak_bytes: int
    """Of the tensors as they were asked for (`requested_bytes.all.peak`)."""
    allocated_peak_bytes: int
    """Of the blocks that were given out, rounded up (`allocated_bytes.all.peak`)."""
    reserved_peak_bytes: int
    """Of the memory that was got from CUDA (`reserved_bytes.all.peak`)."""
    phase_allocated_peak_bytes: dict[str, int]
    """Phase -> the most in any of its turns, what it found at its beginning included."""
    phase_reserved_peak_bytes: dict[str, int]
    fragmentation_bytes: int
    """Reserved and not given out, when the reserved peak was first reached."""
    n_segments: int
    """Segments at that moment; the expandable segment of a pool is one."""
    n_retries: int
    """How often all cached blocks were given back for a request (`num_alloc_retries`)."""
    out_of_memory_at: int | None
    """Index of the event for which there was no room, the last that was looked at."""


def simulate(
    events: Iterable[Event], *, settings: AllocatorSettings, capacity_bytes: int | None = None
) -> AllocatorResult:
    """Give out and take back memory as torch's allocator does.

    Args:
        events: requests, frees and beginnings of phases, in their order. A block that grows is
            freed and then asked for anew, as large as both together.
        settings: of the allocator.
        capacity_bytes: what there is for it on the device; `None` is without end.

    Raises:
        ValueError: a block is freed that is not there.
    """
    run = _Run(settings=settings, capacity_bytes=capacity_bytes)
    for index, event in enumerate(events):
        if event[0] is None:
            run.begin_phase(event[1])
            continue
        block_id, n_bytes = event
        if n_bytes > 0:
            if not run.request(block_id, n_bytes):
                return run.result(out_of_memory_at=index)
        elif n_bytes < 0:
            run.free(block_id)
    return run.result(out_of_memory_at=None)


class _Run:
    """The allocator at one moment, and the peaks up to it."""

    def __init__(self, *, settings: AllocatorSettings, capacity_bytes: int | None) -> None:
        self._settings = settings
        self._rounded = cache(settings.rounded)
        self._capacity_bytes = NO_LIMIT_BYTES if capacity_bytes is None else capacity_bytes
        self._small = Pool(settings, is_small=True)
        self._large = Pool(settings, is_small=False)
        if settings.expandable_segments:
            open_segment(self._small)
            open_segment(self._large)
        self._live: dict[int, Block] = {}
        self._requested_bytes = self._allocated_bytes = self._reserved_bytes = 0
        self._requested_peak_bytes = 0
        # The peaks of the present turn of the present phase.
        self._allocated_peak_bytes = self._reserved_peak_bytes = 0
        self._phase: str | None = None
        self._phase_allocated: dict[str | None, int] = {}
        self._phase_reserved: dict[str | None, int] = {}
        self._most_reserved_bytes = self._fragmentation_bytes = 0
        self._n_segments = self._n_retries = 0

    def begin_phase(self, phase: str | None) -> None:
        """Close the peaks of the phase so far and begin with what is there."""
        for peaks, peak_bytes in (
            (self._phase_allocated, self._allocated_peak_bytes),
            (self._phase_reserved, self._reserved_peak_bytes),
        ):
            peaks[self._phase] = max(peak_bytes, peaks.get(self._phase, 0))
        self._phase = phase
        self._allocated_peak_bytes = self._allocated_bytes
        self._reserved_peak_bytes = self._reserved_bytes

    def request(self, block_id: int, n_bytes: int) -> bool:
        """Give out a block; False where there is no room."""
        if block_id in self._live:
            n_bytes += self._live[block_id].requested_bytes
            self.free(block_id)
        size_bytes = self._rounded(n_bytes)
        pool = self._small if size_bytes <= SMALL_BYTES else self._large
        found = pool.take(size_bytes) or self._grow(pool, size_bytes)
        if found is None:
            return False
        block = self._live[block_id] = pool.cut(found, size_bytes)
        block.requested_bytes = n_bytes
        self._requested_bytes += n_bytes
        self._allocated_bytes += block.n_bytes
        self._requested_peak_bytes = max(self._requested_peak_bytes, self._requested_bytes)
        self._allocated_peak_bytes = max(self._allocated_peak_bytes, self._allocated_bytes)
        if self._reserved_bytes > self._reserved_peak_bytes:
            self._note_reserved_peak()
        return True

    def free(self, block_id: int) -> None:
        """Take a block back into the cache."""
        block = self._live.pop(block_id, None)
        if block is None:
            raise ValueError(f"block {block_id} is freed and is not there; begin where it was made")
        self._requested_bytes -= block.requested_bytes
        self._allocated_bytes -= block.n_bytes
        # A small block is never larger than what was asked for, rounded up.
        (self._small if block.n_bytes <= SMALL_BYTES else self._large).free(block)

    def result(self, *, out_of_memory_at: int | None) -> AllocatorResult:
        """All peaks, the present phase's included."""
        self.begin_phase(None)
        return AllocatorResult(
            requested_peak_bytes=self._requested_peak_bytes,
            allocated_peak_bytes=max(self._phase_allocated.values()),
            reserved_peak_bytes=self._most_reserved_bytes,
            phase_allocated_peak_bytes=_named(self._phase_allocated),
            phase_reserved_peak_bytes=_named(self._phase_reserved),
            fragmentation_bytes=self._fragmentation_bytes,
            n_segments=self._n_segments,
            n_retries=self._n_retries,
            out_of_memory_at=out_of_memory_at,
        )

    def _note_reserved_peak(self) -> None:
        self._reserved_peak_bytes = self._reserved_bytes
        if self._reserved_bytes > self._most_reserved_bytes:
            self._most_reserved_bytes = self._reserved_bytes
            self._fragmentation_bytes = self._reserved_bytes - self._allocated_bytes
            self._n_segments = self._small.n_segments + self._large.n_segments

    def _grow(self, pool: Pool, size_bytes: int) -> Block | None:
        """Get memory from CUDA, after giving cached blocks back where there is no room.

        Source:
            torch 2.13.0, c10/cuda/CUDACachingAllocator.cpp, `malloc`.
        """
        block = self._extend(pool, size_bytes)
        if block is None and pool.release_oversize(size_bytes):
            block = self._extend(pool, size_bytes)
        if block is None:
            self._n_retries += 1
            release = unmap_cached if pool.expandable else Pool.release_unsplit
            release(self._large)
            release(self._small)
            block = self._extend(pool, size_bytes)
        self._reserved_bytes = self._small.reserved_bytes + self._large.reserved_bytes
        return block

    def _extend(self, pool: Pool, size_bytes: int) -> Block | None:
        taken_bytes = self._small.reserved_bytes + self._large.reserved_bytes
        room_bytes = self._capacity_bytes - taken_bytes
        if pool.expandable:
            return expand(pool, size_bytes, room_bytes=room_bytes)
        segment_bytes = self._settings.segment_bytes(size_bytes)
        return pool.add_segment(segment_bytes) if segment_bytes <= room_bytes else None


def _named(peaks: dict[str | None, int]) -> dict[str, int]:
    return {phase: peak_bytes for phase, peak_bytes in peaks.items() if phase is not None}
