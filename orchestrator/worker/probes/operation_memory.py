"""What operations take for themselves while they run, from torch's profiler.

A convolution lays its weights out anew, attention keeps partial results: C++ takes that memory from
torch's CPU allocator and gives it back before the operation returns, so that a dispatch mode never
sees it. The profiler sees every allocation of the thread; those inside one operation are added up.
Of blocks that other threads give back it knows nothing, so it is asked for nothing else.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_MARK = "orchestrator::operation"
_MEMORY = "[memory]"


def operation() -> AbstractContextManager[object]:
    """Mark the operation that runs inside; costs a microsecond while nothing looks on."""
    marked: AbstractContextManager[object] = torch._C._profiler._RecordFunctionFast(_MARK)
    return marked


class OperationMemory:
    """Looks on while marked operations run."""

    def __init__(self) -> None:
        self._profiler: Any = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look on while operations run inside."""
        self._profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        )
        with self._profiler:
            yield

    def peaks(self) -> list[int]:
        """The most bytes each marked operation had taken while it ran, in their order.

        To be asked for after `watched`.

        Source:
            torch 2.13.0, torch/csrc/profiler/python/init.cpp: the event tree and its allocations.
        """
        tree = self._profiler.profiler.kineto_results.experimental_event_tree()
        marked = [event for event in _below(tree) if event.name == _MARK]
        return [
            _peak_inside(event)
            for event in sorted(marked, key=lambda event: int(event.start_time_ns))
        ]


def _below(events: list[Any]) -> Iterator[Any]:
    """Every event of a forest."""
    waiting = list(events)
    while waiting:
        event = waiting.pop()
        waiting += event.children
        yield event


def _peak_inside(operation_event: Any) -> int:
    changes = sorted(
        (int(event.start_time_ns), int(event.typed[1].alloc_size))
        for event in _below(operation_event.children)
        if event.name == _MEMORY
    )
    held = peak = 0
    for _, n_bytes in changes:
        held += n_bytes
        peak = max(peak, held)
    return peak
