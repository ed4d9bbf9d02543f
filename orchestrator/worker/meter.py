"""What one optimizer step costs a rank: time by part, peak bytes by phase, resident memory.

On ordinary steps only clocks and counters are read. Two early steps are probes: one traces every
allocation (on a CPU), one times the collectives; they are marked and left out of throughput.
"""

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.worker.allocations import AllocationTrace, StorageKey, live_storages

_PAGE_BYTES = resource.getpagesize()
_MEMORY_PHASE = {
    "data": "forward",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "step",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Seconds and bytes of one optimizer step on one rank."""

    step_s: float
    part_s: dict[str, float]
    probe: bool
    phase_peak_bytes: dict[str, int] | None
    reserved_bytes: int | None
    host_bytes: int | None
    rss_bytes: int


def probe_steps(total_steps: int) -> tuple[int, int]:
    """Which steps trace memory and which time the collectives.

    Optimizer state comes into being in step 1 and ZeRO-3 learns its order of parameters there, so
    the first step that looks like all others is the second.
    """
    memory = min(2, total_steps)
    return memory, min(memory + 1, total_steps)


class Meter:
    """Measures step after step; `begin`, then `enter` each part, then `end`."""

    def __init__(
        self,
        device: torch.device,
        *,
        total_steps: int,
        ignored: Set[StorageKey],
        offloaded: Callable[[], Iterable[torch.Tensor]],
    ) -> None:
        self._cuda = device.type == "cuda"
        self._memory_step, self._timing_step = probe_steps(total_steps)
        self._ignored = ignored
        self._offloaded = offloaded
        self._trace: AllocationTrace | None = None
        self._profiler: Any = None
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._phase_peaks: dict[str, int] = defaultdict(int)
        self._end_s = time.perf_counter()
        self._probe = False

    def begin(self, step: int) -> AbstractContextManager[object]:
        """Start a step; what it returns must be held while the step runs."""
        self._marks = []
        self._phase_peaks = defaultdict(int)
        self._trace = self._profiler = None
        self._probe = step in (self._memory_step, self._timing_step)
        if step == self._memory_step and not self._cuda:
            resting = live_storages().values()
            self._trace = AllocationTrace(ignored=self._ignored, resting=resting)
            return self._trace
        if step == self._timing_step:
            return self._profiled()
        return nullcontext()

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        self._profiler = profiler = torch.profiler.profile()
        with profiler:
            # A rank whose profiler starts late would be counted as communication by its peers.
            dist.barrier()
            yield

    def enter(self, part: str) -> None:
        """A new part of the step begins: data, forward, backward or optimizer."""
        self._mark(part)
        if self._trace is not None:
            self._trace.enter_phase(_MEMORY_PHASE[part])

    def end(self) -> StepCost:
        """The step is over; to be called inside the held context."""
        self._mark("")
        if self._cuda:
            torch.cuda.synchronize()
        before_s, self._end_s = self._end_s, time.perf_counter()
        peaks, host_bytes = self._peaks()
        return StepCost(
            step_s=self._end_s - before_s,
            part_s=self._parts(),
            probe=self._probe,
            phase_peak_bytes=peaks,
            reserved_bytes=torch.cuda.max_memory_reserved() if self._cuda else None,
            host_bytes=host_bytes,
            rss_bytes=resident_bytes(),
        )

    def leave(self) -> float | None:
        """The step's context is left; what leaving a probe cost is counted for no step.

        Returns:
            Seconds that this step spent in collectives, if it was profiled.
        """
        communication_s = None
        if self._profiler is not None:
            events = self._profiler.events() or []
            spent = [e for e in events if e.name.startswith(("gloo:", "nccl:"))]
            communication_us = sum(
                e.time_range.elapsed_us() for e in spent if not e.name.endswith(":barrier")
            )
            communication_s = communication_us / 1e6
        if self._probe:
            self.resume()
        return communication_s

    def resume(self) -> None:
        """Count the next step from here: what lay between belongs to no step."""
        self._end_s = time.perf_counter()

    def _mark(self, part: str) -> None:
        if not self._cuda:
            self._marks.append((part, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        if self._marks:
            phase = _MEMORY_PHASE[self._marks[-1][0]]
            peak = torch.cuda.max_memory_allocated()
            self._phase_peaks[phase] = max(self._phase_peaks[phase], peak)
            torch.cuda.reset_peak_memory_stats()
        self._marks.append((part, event))

    def _parts(self) -> dict[str, float]:
        seconds: dict[str, float] = defaultdict(float)
        for (part, start), (_, stop) in zip(self._marks, self._marks[1:], strict=False):
            if isinstance(start, float) and isinstance(stop, float):
                seconds[part] += stop - start
            elif isinstance(start, torch.cuda.Event):
                seconds[part] += start.elapsed_time(stop) / 1e3
        return dict(seconds)

    def _peaks(self) -> tuple[dict[str, int] | None, int | None]:
        if self._trace is not None:
            return self._trace.peaks(host=self._offloaded())
        if not self._cuda:
            return None, None
        host = {t.untyped_storage()._cdata: t for t in self._offloaded() if t.device.type == "cpu"}
        held = sum(t.untyped_storage().nbytes() for t in host.values())
        return dict(self._phase_peaks), held if self._probe else None


def resident_bytes() -> int:
    """Resident memory of this process now (`/proc/self/statm`)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
