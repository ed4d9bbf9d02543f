"""Everything a shadow run takes from its device and gives back, in one stream for the allocator.

The construction and each step have a trace of their own; a storage that lives from one to the next
is told again by its address.
"""

from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.storages import StorageKey

Event = tuple[int, int] | tuple[None, str]
"""A number for a storage and its bytes (negative: it goes), or `None` and the phase that begins."""


class DeviceEvents:
    """Joins traces: `begin` as one starts, `end` as it is over."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._live: dict[StorageKey, int] = {}
        self._numbers: dict[int, int] = {}
        self._n_known = 0

    def begin(self, trace: AllocationTrace) -> None:
        """Take over what is there before the trace's first operation."""
        resting = trace.live_blocks()
        for key in self._live.keys() - resting.keys():
            self.events.append((self._live.pop(key), -1))
        self._numbers = {}
        for key, (index, n_bytes) in resting.items():
            if trace.blocks[index].place == "device":
                known = self._live.get(key)
                number = self._new() if known is None else known
                if known is None:
                    self.events.append((number, n_bytes))
                self._numbers[index] = number

    def end(self, trace: AllocationTrace) -> None:
        """Add what the trace has seen."""
        n_resting = sum(block.resting for block in trace.blocks)
        for change in trace.changes[n_resting:]:
            if change.block is None:
                self.events.append((None, change.phase or ""))
            elif trace.blocks[change.block].place == "device":
                if change.block not in self._numbers:
                    self._numbers[change.block] = self._new()
                self.events.append((self._numbers[change.block], change.n_bytes))
        self._live = {
            key: self._numbers[index]
            for key, (index, _) in trace.live_blocks().items()
            if index in self._numbers
        }

    def _new(self) -> int:
        self._n_known += 1
        return self._n_known
