"""One rank from its first import to its last report, whoever started it.

A launcher gives it a place in the world and a function that takes records; it trains and tells.
A group of ranks can train one plan after another: what a plan leaves in the process is cleared away
before the next begins.
"""

import gc
import os
import random
import time
from collections.abc import Callable, Set

import numpy as np
import torch
import torch.distributed as dist

from orchestrator.data.build import build_data
from orchestrator.data.samples import Datasets
from orchestrator.measure.sample import EvalResult, RankDone, RankFacts, RankSample, Record
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.plan.extent import WHOLE, Extent
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.engine import Engine
from orchestrator.worker.engines import build_engine, import_engine
from orchestrator.worker.evaluation import evaluate
from orchestrator.worker.loop import optimizer_steps, train
from orchestrator.worker.meter import Meter
from orchestrator.worker.perturbation import move_weights
from orchestrator.worker.place import Place, device_of, in_process_group
from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.attribution import mark_all, tell_roles
from orchestrator.worker.probes.gpu import Gpu, open_gpu
from orchestrator.worker.probes.memory_probe import completed_on_cuda
from orchestrator.worker.probes.node import NodeMonitor
from orchestrator.worker.probes.process_memory import (
    make_resident_exact,
    proportional_bytes,
    resident_peak_bytes,
    start_window,
)
from orchestrator.worker.probes.replay import TraceResult
from orchestrator.worker.probes.speed import find_speed
from orchestrator.worker.probes.storages import StorageKey, live_keys
from orchestrator.worker.roles import module_roles

PACE_STEP = 5
"""The first step that is neither the first nor a probe."""

Put = Callable[[Record], None]
Pace = Callable[[float], None]


class Rank:
    """One rank of a group, in the group as long as it is entered: trains plan after plan.

    Args:
        first: the first plan; all of them have its device, its workers and its cores.
        place: this rank's place; every rank has its own. Collective.
        timeout_s: longest wait for other ranks in a collective.
    """

    def __init__(self, first: LaunchPlan, place: Place, *, timeout_s: float) -> None:
        self._place = place
        self._exact_rss = first.spec.measure.exact_rss and make_resident_exact()
        # What starting the process took is told with the first plan alone.
        self._startup: dict[str, float] = {}
        clock = _Stopwatch(self._startup)
        import_engine(first)
        clock.lap("imports")
        # Since the process began to work, and not only since here.
        self._startup["imports"] = time.time() - place.entered_unix_s
        self._device = device_of(first.resources.device, place)
        torch.set_num_threads(max(1, int(first.resources.cpus_per_worker)))
        self._group = in_process_group(place, device=self._device, timeout_s=timeout_s)
        self._clock = clock

    def __enter__(self) -> "Rank":
        self._group.__enter__()
        self._clock.lap("process_group")
        _forget_what_is_there()
        return self

    def __exit__(self, *error: object) -> None:
        self._group.__exit__(None, None, None)

    def train(
        self,
        plan: LaunchPlan,
        *,
        put: Put,
        pace: Pace = lambda _step_s: None,
        extent: Extent = WHOLE,
    ) -> None:
        """Train this rank's share of a plan and hand every record to `put` as it comes.

        Args:
            plan: what to run. Collective.
            put: takes records; must not block, and may be called once a step.
            pace: told once, early, how many seconds a step takes: the same number on every rank.
            extent: how much of the plan.

        Raises:
            DivergedError: a loss or gradient is not finite.
            UsageError: model or data cannot be built.
        """
        place, device = self._place, self._device
        startup, self._startup = self._startup, {}
        clock = _Stopwatch(startup)
        _seed(plan.spec.training.seed)
        datasets = build_data(plan.spec.data, folder=plan.folder)
        clock.lap("data")
        ignored = live_keys()
        engine, n_params, held = _build(
            plan, place, device=device, ignored=ignored, clock=clock, extent=extent
        )
        last_step = optimizer_steps(plan, n_train_samples=len(datasets.train))
        if extent.n_steps is not None:
            last_step = min(extent.n_steps, last_step)
        put(
            RankFacts(
                rank=place.rank,
                world_size=place.world_size,
                node=place.node,
                device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                pid=os.getpid(),
                time_unix_s=time.time(),
                n_params=n_params,
                total_steps=last_step,
                n_train_samples=len(datasets.train),
                n_eval_samples=len(datasets.eval),
                startup_s=startup,
                init_peak_bytes=sum(held.peaks["init"].values()),
                init_peak_ledger=held.peaks["init"],
                init_edge_ledger=held.edges["init"],
                init_rss_peak_bytes=resident_peak_bytes(),
                init_pss_bytes=proportional_bytes(),
                exact_rss=self._exact_rss,
            )
        )
        meter = Meter(
            engine,
            total_steps=last_step,
            probed=extent.closely,
            ignored=ignored,
            find_speed=lambda batch, draws_random: find_speed(
                plan,
                batch,
                model=engine.module,
                draws_random=draws_random,
                device=device,
                rank=place.rank,
            ),
            gpu=_gpu(device),
        )
        node = NodeMonitor(node=place.node, rank=place.rank) if place.local_rank == 0 else None
        for record in train(
            plan,
            engine,
            datasets.train,
            rank=place.rank,
            last_step=last_step,
            meter=meter,
            evaluate=lambda step: (
                self._evaluate(plan, engine, datasets, step=step) if extent.closely else None
            ),
        ):
            put(record)
            if node is not None and (told := node.sample(now_s=time.perf_counter())):
                put(told)
            if isinstance(record, RankSample) and record.step == PACE_STEP:
                pace(_slowest(record.step_s, device=device))
        engine.close()
        put(RankDone(rank=place.rank, time_unix_s=time.time()))

    def clear(self) -> None:
        """Leave nothing of the last plan in this process: memory, high-water marks, settings."""
        dist.barrier()
        _forget_what_is_there()
        start_window()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _evaluate(
        self, plan: LaunchPlan, engine: Engine, datasets: Datasets, *, step: int
    ) -> EvalResult:
        return evaluate(
            engine,
            datasets.eval,
            rank=self._place.rank,
            world_size=self._place.world_size,
            batch_size=plan.batch.micro_batch_size,
            step=step,
        )


def run_rank(
    plan: LaunchPlan,
    place: Place,
    *,
    put: Put,
    pace: Pace = lambda _step_s: None,
    timeout_s: float = 300,
) -> None:
    """Train this rank's share of one plan; see `Rank`."""
    with Rank(plan, place, timeout_s=timeout_s) as rank:
        rank.train(plan, put=put, pace=pace)


def _slowest(step_s: float, *, device: torch.device) -> float:
    """The largest of all ranks' numbers. Collective."""
    slowest = torch.tensor(step_s, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return float(slowest)


def _gpu(device: torch.device) -> Gpu | None:
    if device.type != "cuda":
        return None
    return open_gpu(str(torch.cuda.get_device_properties(device).uuid))


def _build(
    plan: LaunchPlan,
    place: Place,
    *,
    device: torch.device,
    ignored: Set[StorageKey],
    clock: "_Stopwatch",
    extent: Extent,
) -> tuple[Engine, int, TraceResult]:
    """Build model and engine; also count parameters and tell what the device held meanwhile."""
    trace = AllocationTrace(ignored=ignored, device_type=device.type)
    cuda = device.type == "cuda"
    _seed(plan.spec.training.seed)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with trace:
        trace.enter_phase("init")
        model = build_model(plan.spec.model, folder=plan.folder)
        if plan.spec.training.activation_checkpointing:
            enable_activation_checkpointing(model)
        n_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
        mark_all(trace, module_roles(model))
        clock.lap("model")
        if extent.weights_off_by is not None:
            move_weights(model, by=extent.weights_off_by, seed=extent.off_seed)
        engine = build_engine(plan, model, device=device)
        tell_roles(trace, engine)
        clock.lap("engine")
        held = trace.result()
        if cuda:
            held = completed_on_cuda(held, device)
    # Weights come out the same on every rank; what dropout draws from here on must not.
    _seed(plan.spec.training.seed * place.world_size + place.rank)
    return engine, n_params, held


def _forget_what_is_there() -> None:
    """Let the probes look through new objects only: libraries have a million of their own."""
    gc.collect()
    gc.freeze()


def _seed(seed: int) -> None:
    """Start every generator that a model or a dataset may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class _Stopwatch:
    """Writes the seconds since the last lap into a dict."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps = laps
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now
