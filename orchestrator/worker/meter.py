"""What one optimizer step costs a rank: time by part, peak bytes by phase, resident memory.

On ordinary steps only clocks and counters are read. Three early steps are probes: one traces every
allocation, one times the collectives, one takes the peaks of resident memory. They are marked and
left out of throughput; none of them disturbs another.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from orchestrator.measure.sample import (
    CudaMemory,
    GpuState,
    ProbedMemory,
    RankSpeed,
    ResidentMemory,
)
from orchestrator.worker.engine import Batch, Engine
from orchestrator.worker.probes.gpu import Gpu
from orchestrator.worker.probes.memory_probe import MemoryProbe
from orchestrator.worker.probes.process_memory import container_peak_bytes, resident_peak_bytes
from orchestrator.worker.probes.replay import Moment
from orchestrator.worker.probes.resident_probe import ResidentProbe
from orchestrator.worker.probes.speed import random_state
from orchestrator.worker.probes.storages import StorageKey

_MEMORY_PHASE = {
    "data": "forward",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "step",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Seconds and bytes of one optimizer step on one rank; see `RankSample`."""

    step_s: float
    part_s: dict[str, float]
    """Data, forward, backward, optimizer and logging."""
    communication_s: float | None
    """Inside collectives, where they were timed."""
    probe: bool
    phase_peak_bytes: dict[str, int] | None
    probed: ProbedMemory | None
    resident: ResidentMemory | None
    timeline: tuple[Moment, ...]
    host_bytes: int | None
    rss_peak_bytes: int | None
    container_peak_bytes: int | None
    cuda: CudaMemory | None
    gpu: GpuState | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSteps:
    """Which steps are probes, and of what; in a short run one may be several."""

    memory: int
    collectives: int
    resident: int

    def __contains__(self, step: int) -> bool:
        return step in (self.memory, self.collectives, self.resident)


NO_PROBES = ProbeSteps(memory=0, collectives=0, resident=0)
"""Steps are counted from 1."""


def probe_steps(total_steps: int) -> ProbeSteps:
    """Choose the probes.

    Optimizer state comes into being in step 1 and ZeRO-3 learns its order of parameters there, so
    the first step that looks like all others is the second.
    """
    memory, collectives, resident = (min(step, total_steps) for step in (2, 3, 4))
    return ProbeSteps(memory=memory, collectives=collectives, resident=resident)


class Meter:
    """Measures step after step: `begin`, `enter` each part, `end` inside, and `leave` outside."""

    def __init__(
        self,
        engine: Engine,
        *,
        total_steps: int,
        probed: bool = True,
        ignored: Set[StorageKey],
        find_speed: Callable[[Batch, bool | None], RankSpeed],
        gpu: Gpu | None = None,
    ) -> None:
        """Measure an engine.

        Args:
            engine: whose steps.
            total_steps: how many there will be.
            probed: some of the first steps are probes.
            ignored: storages that do not belong to the device, such as the data's.
            find_speed: says what a micro-batch computes and the device could do; also told
                whether a forward drew random numbers.
            gpu: the rank's GPU as its driver sees it.
        """
        self.speed: RankSpeed | None = None
        """What the rank computes in a step; `None` until the probes are over."""
        self._find_speed = find_speed
        self._engine = engine
        self._cuda = engine.device.type == "cuda"
        self._total_steps = total_steps
        self._probes = probe_steps(total_steps) if probed else NO_PROBES
        self._ignored = ignored
        self._gpu = gpu
        self._step = 0
        self._memory: MemoryProbe | None = None
        self._resident: ResidentProbe | None = None
        self._profiler: Any = None
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._phase_peaks: dict[str, int] = defaultdict(int)
        self._reserved_peak_bytes = 0
        self._end_s = time.perf_counter()
        self._step_s = self._logging_s = 0.0
        self._random_state: torch.Tensor | None = None
        self._draws_random: bool | None = None

    def begin(self, step: int) -> AbstractContextManager[object]:
        """Start a step; what it returns must be held while the step runs."""
        self._logging_s = time.perf_counter() - self._end_s
        self._step = step
        self._marks = []
        self._phase_peaks = defaultdict(int)
        self._reserved_peak_bytes = 0
        self._memory = self._resident = self._profiler = None
        if step == self._probes.memory:
            self._memory = MemoryProbe(self._engine, ignored=self._ignored)
            return self._memory.traced()
        if step == self._probes.collectives:
            return self._profiled()
        if step == self._probes.resident:
            self._resident = ResidentProbe()
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
        if self._draws_random is None:
            self._watch_random_draws(part)
        for probe in (self._memory, self._resident):
            if probe is not None:
                probe.enter(_MEMORY_PHASE[part])

    def end(self) -> None:
        """The step is over; to be called inside the held context."""
        self._mark("")
        if self._cuda:
            torch.cuda.synchronize()
        now_s = time.perf_counter()
        self._step_s, self._end_s = now_s - self._end_s, now_s
        if self._memory is not None:
            self._memory.end()

    def leave(self) -> StepCost:
        """Sum up the step, once its context is left; what a probe costs here is no step's time."""
        is_probe = self._step in self._probes
        traced = None if self._memory is None else self._memory.result()
        peaks = dict(self._phase_peaks) if self._cuda else None
        cost = StepCost(
            step_s=self._step_s,
            part_s={**self._parts(), "logging": self._logging_s},
            communication_s=self._communication_s(),
            probe=is_probe,
            phase_peak_bytes=peaks if traced is None else traced.phase_peak_bytes,
            probed=None if traced is None else traced.memory,
            resident=None if self._resident is None else self._resident.result(),
            timeline=() if traced is None else traced.timeline,
            host_bytes=None if traced is None else sum(traced.memory.host_ledger.values()),
            rss_peak_bytes=resident_peak_bytes(),
            container_peak_bytes=(
                container_peak_bytes() if is_probe or self._step == self._total_steps else None
            ),
            cuda=cuda_memory(self._reserved_peak_bytes) if self._cuda else None,
            gpu=self._gpu_state(),
        )
        if is_probe:
            self.resume()
        return cost

    def _communication_s(self) -> float | None:
        if self._profiler is None:
            return None
        events = self._profiler.events() or []
        spent = [e for e in events if e.name.startswith(("gloo:", "nccl:"))]
        timed = (e.time_range.elapsed_us() for e in spent if not e.name.endswith(":barrier"))
        return float(sum(timed)) / 1e6

    @property
    def probes_are_over(self) -> bool:
        """Whether this step was the last probe, or comes after it; never without probes."""
        return self._probes is not NO_PROBES and self._step >= max(
            self._probes.memory, self._probes.collectives, self._probes.resident
        )

    def find_speed(self, batch: Batch) -> RankSpeed:
        """Find out what a step computes; it takes a second, which is counted for no step.

        Args:
            batch: one micro-batch, on the CPU.
        """
        self.speed = self._find_speed(batch, self._draws_random)
        self.resume()
        return self.speed

    def resume(self) -> None:
        """Count the next step from here: what lay between belongs to no step."""
        self._end_s = time.perf_counter()

    def _watch_random_draws(self, part: str) -> None:
        """See whether the very first forward draws random numbers."""
        if part == "forward":
            self._random_state = random_state(self._engine.device)
        elif part == "backward" and self._random_state is not None:
            now = random_state(self._engine.device)
            self._draws_random = not torch.equal(self._random_state, now)
            self._random_state = None

    def _gpu_state(self) -> GpuState | None:
        if self._gpu is None:
            return None
        return self._gpu.state(now_s=self._end_s, reserved_bytes=torch.cuda.memory_reserved())

    def _mark(self, part: str) -> None:
        if not self._cuda:
            self._marks.append((part, time.perf_counter()))
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        # Every reset of the peaks, here and in the probe, comes after a mark.
        self._reserved_peak_bytes = max(self._reserved_peak_bytes, torch.cuda.max_memory_reserved())
        if self._marks and self._memory is None:
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


def cuda_memory(reserved_peak_bytes: int) -> CudaMemory:
    """What CUDA's allocator holds beyond tensors, as the step ends.

    Args:
        reserved_peak_bytes: the most it held in the step.

    Source:
        torch 2.13.0, torch/cuda/memory.py, `memory_stats`.
    """
    stats = torch.cuda.memory_stats()
    return CudaMemory(
        reserved_bytes=reserved_peak_bytes,
        cached_bytes=stats["reserved_bytes.all.current"] - stats["allocated_bytes.all.current"],
        fragmented_bytes=stats["inactive_split_bytes.all.current"],
        n_retries=stats["num_alloc_retries"],
    )
