"""The memory probe: one step in which every allocation is traced and given its category.

On a CPU the trace is the measure, completed by what operations take for themselves while they run.
On a GPU CUDA's allocator is: its own history of the step, joined with the trace; what it counted
beyond that is the ledger's unattributed line.
"""

import gc
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from orchestrator.measure.ledger import Ledger, completed
from orchestrator.measure.sample import ProbedMemory
from orchestrator.worker.engine import Engine
from orchestrator.worker.probes.allocations import LET_GO_S, AllocationTrace
from orchestrator.worker.probes.attribution import attributed, tell_roles
from orchestrator.worker.probes.cuda_history import (
    NamedBlock,
    PhaseStart,
    history_of,
    ledgers_by_phase,
    memory_history,
    now_us,
)
from orchestrator.worker.probes.operation_memory import OperationMemory
from orchestrator.worker.probes.replay import Moment, TraceResult
from orchestrator.worker.probes.storages import StorageKey, live_storages

CLOSE = 0.01
"""How near the replayed history must come to the allocator's own peak to be taken for it."""
N_MOMENTS = 200
"""Moments of a step's timeline: more than a plot is wide in points that can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What one step held."""

    phase_peak_bytes: dict[str, int]
    memory: ProbedMemory
    timeline: tuple[Moment, ...]


class OperationsWatch(Protocol):
    """Looks on while operations run, and says what each took for itself."""

    def watched(self) -> AbstractContextManager[None]:
        """Look on inside."""
        ...

    def peaks(self) -> list[int]:
        """The most bytes each operation had taken while it ran, in their order."""
        ...


class MemoryProbe:
    """Traces one step: `enter` each phase and `end` inside `traced`; `result` comes after it."""

    def __init__(
        self,
        engine: Engine,
        *,
        ignored: Set[StorageKey],
        operations: OperationsWatch | None = None,
        settle_s: float = LET_GO_S,
        kind: type[torch.Tensor] = torch.Tensor,
    ) -> None:
        """Look at what is there before the step.

        Args:
            engine: whose step.
            ignored: storages that do not belong to the device, such as the data's.
            operations: tells what operations take for themselves; `None` for torch's profiler.
            settle_s: how long the first operation after a collective waits.
            kind: only tensors of this class are there before the step.
        """
        # What steps left in circles of references goes by chance; not while this one is watched.
        gc.collect()
        # Nor may gloo's thread hold on to the gradients of the step before: on a busy machine it
        # comes to let go only when this thread makes room.
        time.sleep(5 * settle_s)
        self._engine = engine
        self._cuda = engine.device.type == "cuda"
        self.trace = AllocationTrace(
            ignored=ignored,
            resting=live_storages(kind).values(),
            device_type=engine.device.type,
            settle_s=settle_s,
        )
        # CUDA's allocator counts what operations take for themselves.
        self._operations = operations or (None if self._cuda else OperationMemory())
        self._phase: str | None = None
        self._allocated_peaks: dict[str, int] = {}
        self._allocated_edges: dict[str, int] = {}
        self._allocated_before = torch.cuda.memory_allocated() if self._cuda else 0
        self._cuda_entries: list[dict[str, Any]] = []
        self._phase_starts: list[PhaseStart] = []

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Trace what runs inside."""
        watched = memory_history() if self._operations is None else self._operations.watched()
        with watched, self.trace, attributed(self.trace, self._engine):
            yield

    def enter(self, phase: str) -> None:
        """A phase begins; if it is a new one, the one before is closed."""
        if phase == self._phase:
            return
        self._close()
        self._phase = phase
        if self._cuda:
            self._phase_starts.append(PhaseStart(at_us=now_us(), phase=phase))
        self.trace.enter_phase(phase)

    def end(self) -> None:
        """The step is over."""
        self._close()
        if self._cuda:
            self._cuda_entries = history_of(self._engine.device)

    def _close(self) -> None:
        if self._phase is not None:
            tell_roles(self.trace, self._engine)
        if self._cuda:
            torch.cuda.synchronize()
            if self._phase is not None:
                before = self._allocated_peaks.get(self._phase, 0)
                allocated = max(before, torch.cuda.max_memory_allocated())
                self._allocated_peaks[self._phase] = allocated
                self._allocated_edges[self._phase] = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()

    def result(self) -> ProbeResult:
        """Sum up the step for a sample."""
        held = self.held()
        return ProbeResult(
            phase_peak_bytes=held.peak_bytes(),
            memory=ProbedMemory(
                peak_ledgers=held.peaks, edge_ledgers=held.edges, host_ledger=held.host_peak
            ),
            timeline=held.timeline,
        )

    def held(self) -> TraceResult:
        """What the step held."""
        operation_peaks = () if self._operations is None else self._operations.peaks()
        held = self.trace.result(operation_peaks=operation_peaks, n_moments=N_MOMENTS)
        if not self._cuda:
            return held
        return replace(
            held,
            peaks=_completed({**held.peaks, **self._cuda_peaks(held)}, self._allocated_peaks),
            edges=_completed(held.edges, self._allocated_edges),
        )

    def _cuda_peaks(self, held: TraceResult) -> dict[str, Ledger]:
        """Phase -> ledger from the allocator's history, where that explains the phase's peak."""
        found = ledgers_by_phase(
            self._cuda_entries,
            resting=completed(held.resting, measured_bytes=self._allocated_before),
            resting_addresses={
                block.address: block.final_category()
                for block in self.trace.blocks
                if block.address is not None and block.resting
            },
            blocks=[
                NamedBlock(
                    address=block.address,
                    seen_us=block.seen_us,
                    category=block.final_category(),
                )
                for block in self.trace.blocks
                if block.address is not None and not block.resting
            ],
            phases=self._phase_starts,
        )
        return {
            phase: ledger
            for phase, ledger in found.items()
            if abs(sum(ledger.values()) - self._allocated_peaks.get(phase, 0))
            <= CLOSE * self._allocated_peaks.get(phase, 0)
        }


def completed_on_cuda(held: TraceResult, device: torch.device) -> TraceResult:
    """Complete what was traced while an engine was built by what CUDA's allocator counted."""
    peak, now = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return replace(
        held,
        peaks=_completed(held.peaks, {"init": peak}),
        edges=_completed(held.edges, {"init": now}),
    )


def _completed(ledgers: Mapping[str, Ledger], measured: Mapping[str, int]) -> dict[str, Ledger]:
    return {
        phase: completed(ledger, measured_bytes=measured.get(phase, 0))
        for phase, ledger in ledgers.items()
    }
