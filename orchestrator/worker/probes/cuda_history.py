"""CUDA's allocator, event by event: which tensor each of its blocks belonged to.

The allocator can write down what it gives out and takes back, and how large each block really is:
rounded up, and with the workspaces that libraries ask for inside an operation, which no dispatch
mode sees. Joined with the trace by address and time, its blocks get the tensors' categories.

The joining is pure. What it makes has not been seen on a GPU yet.

Source: torch 2.13.0, torch/cuda/memory.py, `_record_memory_history` and `_snapshot`.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.measure.ledger import Ledger, empty_ledger

MAX_ENTRIES = 200_000
"""Events that are kept, the newest: some hundred bytes each without stack traces."""
_GIVEN, _TAKEN_BACK = "alloc", "free_completed"
_OWN = "temporaries"
"""What an operation takes for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBlock:
    """A tensor's memory as the trace saw it."""

    address: int
    seen_us: float
    """When it was first seen, microseconds since 1970."""
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStart:
    """A phase begins."""

    at_us: float
    phase: str


@contextmanager
def memory_history() -> Iterator[None]:
    """Let CUDA's allocator write down what happens inside; its stacks are left out."""
    torch.cuda.memory._record_memory_history(
        "all", context=None, stacks="python", max_entries=MAX_ENTRIES
    )
    try:
        yield
    finally:
        torch.cuda.memory._record_memory_history(None)


def history_of(device: torch.device) -> list[dict[str, Any]]:
    """What was written down for a device; to be asked for inside `memory_history`."""
    snapshot: Mapping[str, Any] = torch.cuda.memory._snapshot(device)
    traces: list[list[dict[str, Any]]] = snapshot["device_traces"]
    index: int = torch.cuda.current_device() if device.index is None else device.index
    return traces[index]


def now_us() -> float:
    """The clock of the allocator's events."""
    return time.time_ns() / 1e3


def ledgers_by_phase(
    entries: Sequence[Mapping[str, Any]],
    *,
    resting: Ledger,
    resting_addresses: Mapping[int, str],
    blocks: Sequence[NamedBlock],
    phases: Sequence[PhaseStart],
) -> dict[str, Ledger]:
    """Replay the allocator and keep each phase's fullest moment.

    Args:
        entries: its events, in order.
        resting: what it held before the first of them, by category.
        resting_addresses: address -> category of what was there before.
        blocks: what the trace saw inside, in order.
        phases: in order; events before the first count for none.

    Returns:
        Phase -> ledger. A block that no tensor was seen in is a temporary: an operation's own.
    """
    held = dict(resting)
    peaks: dict[str, Ledger] = {}
    begun = 0

    def look(phase: str) -> None:
        if sum(held.values()) > sum(peaks.get(phase, empty_ledger()).values()):
            peaks[phase] = dict(held)

    for at_us, category, change in _changes(entries, resting_addresses, _seen_at(blocks)):
        # What is there as a phase begins counts for it.
        while begun < len(phases) and phases[begun].at_us <= at_us:
            look(phases[begun].phase)
            begun += 1
        held[category] += change
        if begun:
            look(phases[begun - 1].phase)
    for start in phases[begun:]:
        look(start.phase)
    return peaks


def _changes(
    entries: Sequence[Mapping[str, Any]],
    resting_addresses: Mapping[int, str],
    seen: Mapping[int, tuple[list[float], list[str]]],
) -> list[tuple[float, str, int]]:
    """Every event as its time, the block's category and the bytes it adds or takes away."""
    changes: list[tuple[float, str, int]] = []
    # Address -> when it was given out, its size, and where its own change stands in the list.
    live: dict[int, tuple[float, int, int]] = {}
    resting = dict(resting_addresses)
    for entry in entries:
        address, size, at_us = int(entry["addr"]), int(entry["size"]), float(entry["time_us"])
        if entry["action"] == _GIVEN:
            live[address] = (at_us, size, len(changes))
            changes.append((at_us, _OWN, size))
        elif entry["action"] == _TAKEN_BACK and address in live:
            given_us, given_bytes, number = live.pop(address)
            category = _category(seen, address, given_us, at_us)
            changes[number] = (given_us, category, given_bytes)
            changes.append((at_us, category, -given_bytes))
        elif entry["action"] == _TAKEN_BACK and address in resting:
            changes.append((at_us, resting.pop(address), -size))
    for address, (given_us, size, number) in live.items():
        changes[number] = (given_us, _category(seen, address, given_us, float("inf")), size)
    return changes


def _seen_at(blocks: Sequence[NamedBlock]) -> dict[int, tuple[list[float], list[str]]]:
    """Address -> when tensors were first seen there, and what they were for."""
    seen: dict[int, tuple[list[float], list[str]]] = {}
    for block in sorted(blocks, key=lambda block: block.seen_us):
        times, categories = seen.setdefault(block.address, ([], []))
        times.append(block.seen_us)
        categories.append(block.category)
    return seen


def _category(
    seen: Mapping[int, tuple[list[float], list[str]]],
    address: int,
    given_us: float,
    taken_us: float,
) -> str:
    """The category of the tensor that was seen at an address while a block was there."""
    times, categories = seen.get(address, ([], []))
    index = bisect_right(times, given_us)
    return categories[index] if index < len(times) and times[index] <= taken_us else _OWN
