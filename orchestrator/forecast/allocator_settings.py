"""The AllocatorSettings: what torch's caching allocator for CUDA can be told, and its fixed sizes.

Pure data, and the reading of PYTORCH_ALLOC_CONF's text, which the caller takes from the
environment. Imports no torch.
"""

import re
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.units import MIB

MIN_BLOCK_BYTES = 512
SMALL_BYTES = MIB
"""The largest request that goes to the small pool."""
SMALL_SEGMENT_BYTES = 2 * MIB
MIN_LARGE_BYTES = 10 * MIB
"""From here on a request gets a segment of its own size."""
ROUND_LARGE_BYTES = 2 * MIB
"""Source of all five: torch 2.13.0, c10/core/AllocatorConfig.h, from `kSmallBuffer` on."""

N_INTERVALS = 16
"""Powers of two from 1 MiB to 64 GiB, each of which may be divided differently.

Source: torch 2.13.0, c10/core/AllocatorConfig.cpp, `roundup_power2_divisions`.
"""

_ENTRY = re.compile(r"(?P<key>[^,:\[\]]+):(?P<value>\[[^\]]*\]|[^,:\[\]]+)(?:,|$)")
_SIZES_MB = {
    "large_segment_size_mb": "large_segment_bytes",
    "max_split_size_mb": "max_split_size_bytes",
    "max_non_split_rounding_mb": "max_non_split_rounding_bytes",
}
_WITHOUT_EFFECT = re.compile(r"pinned_.*|release_lock_on_.*|graph_capture_.*|throw_on_.*")
"""Options of pinned memory, locks and errors: they do not change what the device holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorSettings:
    """How the allocator is set up; the defaults are torch's.

    Raises:
        ValueError: a value that torch refuses.

    Source:
        torch 2.13.0, c10/core/AllocatorConfig.h and .cpp.
    """

    expandable_segments: bool = False
    large_segment_bytes: int = 20 * MIB
    """Segment for requests above 1 and below 10 MiB; page of expandable segments' large pool."""
    max_split_size_bytes: int | None = None
    """Blocks from this size on are never split; `None` splits all."""
    max_non_split_rounding_bytes: int | None = None
    """How much larger than the request a block that is never split may be; `None` is one large
    segment."""
    roundup_power2_divisions: int | tuple[int, ...] | None = None
    """Into how many parts each power of two is divided for rounding; a tuple has one number for
    each of 16 intervals, the first for all below 2 MiB; `None`, 0 and 1 round to 512 bytes."""

    def __post_init__(self) -> None:
        if self.large_segment_bytes <= MIN_LARGE_BYTES:
            raise ValueError("large_segment_size_mb must be above 10")
        for key, n_bytes in (
            ("max_split_size_mb", self.max_split_size_bytes),
            ("max_non_split_rounding_mb", self.max_non_split_rounding_bytes),
        ):
            if n_bytes is not None and n_bytes < self.large_segment_bytes:
                least = self.large_segment_bytes // MIB
                raise ValueError(f"{key} must be at least {least}, the large segment's size")
        divisions = self.roundup_power2_divisions or 0
        table = divisions if isinstance(divisions, tuple) else (divisions,)
        if any(n < 0 or n & (n - 1) for n in table):
            raise ValueError("roundup_power2_divisions must be powers of two")
        if isinstance(divisions, tuple) and len(divisions) != N_INTERVALS:
            raise ValueError(f"roundup_power2_divisions must be one number or {N_INTERVALS}")

    def rounded(self, n_bytes: int) -> int:
        """The size of the block that a request asks the pools for.

        Args:
            n_bytes: the request, at least 1.

        Source:
            torch 2.13.0, c10/cuda/CUDACachingAllocator.cpp, `round_size` and
            `roundup_power2_next_division`.
        """
        divisions = self._divisions(n_bytes)
        if divisions < 2 or n_bytes <= MIN_BLOCK_BYTES * divisions:
            return -(-n_bytes // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES
        power = 1 << (n_bytes.bit_length() - 1)
        part = power // divisions
        return -(-n_bytes // part) * part

    def segment_bytes(self, n_bytes: int) -> int:
        """What is asked of CUDA for a block that no cached one serves.

        Args:
            n_bytes: the block, rounded.

        Source:
            torch 2.13.0, c10/cuda/CUDACachingAllocator.cpp, `get_allocation_size`.
        """
        if n_bytes <= SMALL_BYTES:
            return SMALL_SEGMENT_BYTES
        if n_bytes < MIN_LARGE_BYTES:
            return self.large_segment_bytes
        return -(-n_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES

    def _divisions(self, n_bytes: int) -> int:
        divisions = self.roundup_power2_divisions
        if isinstance(divisions, tuple):
            interval = n_bytes.bit_length() - MIB.bit_length()
            return divisions[min(max(0, interval), N_INTERVALS - 1)]
        return divisions or 0


def settings_from_env(text: str | None) -> tuple[AllocatorSettings, tuple[str, ...]]:
    """Read the text of PYTORCH_ALLOC_CONF or PYTORCH_CUDA_ALLOC_CONF.

    Args:
        text: `key:value,key:value`, spaces anywhere; `None` where the variable is not set.

    Returns:
        The settings, and the keys that are not followed, in their order: those that are unknown
        (torch with CUDA refuses to start with one), another `backend`, and
        `garbage_collection_threshold` with `per_process_memory_fraction`, the first of which does
        nothing without the second.

    Raises:
        UsageError: it is not made of such pairs, or torch refuses a value.

    Source:
        torch 2.13.0, c10/core/AllocatorConfig.cpp, `parseArgs`; tried on torch 2.13.0+cpu.
    """
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for key, value in _entries(text or ""):
        try:
            known = _read(key, value)
        except ValueError as err:
            raise UsageError(f"PYTORCH_ALLOC_CONF: {key}: {err}") from err
        values |= known or {}
        if known is None:
            ignored.append(key)
    try:
        return AllocatorSettings(**values), tuple(ignored)
    except ValueError as err:
        raise UsageError(f"PYTORCH_ALLOC_CONF: {err}") from err


def _entries(text: str) -> list[tuple[str, str]]:
    bare = re.sub(r"\s", "", text)
    entries = []
    at = 0
    while at < len(bare):
        match = _ENTRY.match(bare, at)
        if match is None:
            raise UsageError(
                f"PYTORCH_ALLOC_CONF: {bare[at:]!r} is not key:value; write key:value,key:value"
            )
        entries.append((match["key"], match["value"]))
        at = match.end()
    return entries


def _read(key: str, value: str) -> dict[str, Any] | None:
    """The fields that an entry sets; `None` of one that is not followed."""
    if key in _SIZES_MB:
        return {_SIZES_MB[key]: _whole(value) * MIB}
    if key == "expandable_segments":
        if value not in ("True", "False"):
            raise ValueError(f"{value!r} is no switch; write True or False")
        return {key: value == "True"}
    if key == "roundup_power2_divisions":
        return {key: _table(value) if value.startswith("[") else _power_of_two(value)}
    without_effect = _WITHOUT_EFFECT.fullmatch(key) or (key, value) == ("backend", "native")
    return {} if without_effect else None


def _whole(text: str) -> int:
    """A number as C++ reads it, what follows the digits left out."""
    match = re.match(r"\d+", text)
    if match is None:
        raise ValueError(f"{text!r} is not a number; write a whole one")
    return int(match[0])


def _power_of_two(text: str) -> int:
    number = _whole(text)
    if number == 0 or number & (number - 1):
        raise ValueError(f"{text!r} is not a power of two; write 1, 2, 4 and so on")
    return number


def _table(text: str) -> tuple[int, ...]:
    """Divisions by interval from `[64:8,256:4,>:1]`, whose intervals are in MiB."""
    table = [0] * N_INTERVALS
    last: int | None = None
    for pair in filter(None, text.strip("[]").split(",")):
        size, _, divisions = pair.partition(":")
        number = _whole(divisions)
        if size == ">":
            begin = 1 if last is None else last + 1
            table[begin:] = [number] * (N_INTERVALS - begin)
            continue
        interval = min(_power_of_two(size).bit_length() - 1, N_INTERVALS - 1)
        if last is None:
            table[:interval] = [number] * interval
        table[interval] = number
        last = interval
    return tuple(table)
