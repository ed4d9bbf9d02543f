"""One rank from its first import to its last report, whoever started it.

A launcher gives it a place in the world and a function that takes records; it trains and tells.
"""

import math
import os
import platform
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist

from orchestrator.data.build import build_data
from orchestrator.measure.sample import RankFacts, RankSample, Record
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.engine import Engine
from orchestrator.worker.engines import build_engine
from orchestrator.worker.evaluation import evaluate
from orchestrator.worker.loop import train
from orchestrator.worker.meter import Meter
from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.attribution import mark_all, tell_roles
from orchestrator.worker.probes.gpu import Gpu, open_gpu
from orchestrator.worker.probes.memory_probe import completed_on_cuda
from orchestrator.worker.probes.node import NodeMonitor
from orchestrator.worker.probes.process_memory import (
    make_resident_exact,
    proportional_bytes,
    resident_peak_bytes,
)
from orchestrator.worker.probes.replay import TraceResult
from orchestrator.worker.probes.speed import find_speed
from orchestrator.worker.probes.storages import StorageKey, live_keys
from orchestrator.worker.roles import module_roles

PACE_STEP = 5
"""The first step that is neither the first nor a probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one rank stands."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    master_address: str
    master_port: int
    entered_unix_s: float
    """When the process of this rank began to work for the run."""


def run_rank(
    plan: LaunchPlan,
    place: Place,
    *,
    put: Callable[[Record], None],
    pace: Callable[[float], None] = lambda _step_s: None,
    timeout_s: float = 300,
) -> None:
    """Train this rank's share and hand every record to `put` as it comes.

    Args:
        plan: what to run.
        place: this rank's place; every rank calls with its own. Collective.
        put: takes records; must not block, and may be called once a step.
        pace: told once, early, how many seconds a step takes: the same number on every rank.
        timeout_s: longest wait for other ranks in a collective.

    Raises:
        DivergedError: a loss or gradient is not finite.
        UsageError: model or data cannot be built.
    """
    exact_rss = plan.spec.measure.exact_rss and make_resident_exact()
    startup = {"imports": time.time() - place.entered_unix_s}
    clock = _Stopwatch(startup)
    device = _device(plan, place)
    torch.set_num_threads(max(1, int(plan.resources.cpus_per_worker)))
    join_process_group(place, device=device, timeout_s=timeout_s)
    clock.lap("process_group")
    try:
        datasets = build_data(plan.spec.data, folder=plan.folder)
        clock.lap("data")
        ignored = live_keys()
        engine, n_params, held = _build(plan, place, device=device, ignored=ignored, clock=clock)
        total_steps = optimizer_steps(plan, n_train_samples=len(datasets.train))
        put(
            RankFacts(
                rank=place.rank,
                world_size=place.world_size,
                node=place.node,
                device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                pid=os.getpid(),
                time_unix_s=time.time(),
                n_params=n_params,
                total_steps=total_steps,
                n_train_samples=len(datasets.train),
                n_eval_samples=len(datasets.eval),
                startup_s=startup,
                init_peak_bytes=sum(held.peaks["init"].values()),
                init_peak_ledger=held.peaks["init"],
                init_edge_ledger=held.edges["init"],
                init_rss_peak_bytes=resident_peak_bytes(),
                init_pss_bytes=proportional_bytes(),
                exact_rss=exact_rss,
            )
        )
        meter = Meter(
            engine,
            total_steps=total_steps,
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
        evaluation = partial(
            evaluate,
            engine,
            datasets.eval,
            rank=place.rank,
            world_size=place.world_size,
            batch_size=plan.batch.micro_batch_size,
        )
        node = NodeMonitor(node=place.node, rank=place.rank) if place.local_rank == 0 else None
        for record in train(
            plan,
            engine,
            datasets.train,
            rank=place.rank,
            total_steps=total_steps,
            meter=meter,
            evaluate=lambda step: evaluation(step=step),
        ):
            put(record)
            if node is not None and (told := node.sample(now_s=time.perf_counter())):
                put(told)
            if isinstance(record, RankSample) and record.step == PACE_STEP:
                pace(_slowest(record.step_s, device=device))
        engine.close()
    finally:
        dist.destroy_process_group()


def _slowest(step_s: float, *, device: torch.device) -> float:
    """The largest of all ranks' numbers. Collective."""
    slowest = torch.tensor(step_s, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return float(slowest)


def optimizer_steps(plan: LaunchPlan, *, n_train_samples: int) -> int:
    """How many optimizer steps the run takes; epochs are rounded up to whole steps."""
    training = plan.spec.training
    if training.steps is not None:
        return training.steps
    return math.ceil((training.epochs or 1) * n_train_samples / plan.batch.global_batch_size)


def join_process_group(place: Place, *, device: torch.device, timeout_s: float) -> None:
    """Meet the other ranks: nccl between GPUs, gloo between CPUs. Collective."""
    # DeepSpeed reads the rank's place from the environment, as torchrun would set it.
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "MASTER_ADDR": place.master_address,
        "MASTER_PORT": str(place.master_port),
    }
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"tcp://{place.master_address}:{place.master_port}",
        rank=place.rank,
        world_size=place.world_size,
        timeout=timedelta(seconds=timeout_s),
        device_id=device if device.type == "cuda" else None,
    )


def _device(plan: LaunchPlan, place: Place) -> torch.device:
    if plan.resources.device == "cpu":
        return torch.device("cpu")
    # Ray shows each worker its own GPU only; a process that sees them all takes its share.
    index = place.local_rank if torch.cuda.device_count() > 1 else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


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
) -> tuple[Engine, int, TraceResult]:
    """Build model and engine; also count parameters and tell what the device held meanwhile."""
    trace = AllocationTrace(ignored=ignored, device_type=device.type)
    cuda = device.type == "cuda"
    torch.manual_seed(plan.spec.training.seed)
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
        engine = build_engine(plan, model, device=device)
        tell_roles(trace, engine)
        clock.lap("engine")
        held = trace.result()
        if cuda:
            held = completed_on_cuda(held, device)
    # Weights come out the same on every rank; what dropout draws from here on must not.
    torch.manual_seed(plan.spec.training.seed * place.world_size + place.rank)
    return engine, n_params, held


def this_node() -> str:
    """The name of the machine, as metrics and tables show it."""
    return platform.node() or "localhost"


class _Stopwatch:
    """Writes the seconds since the last lap into a dict."""

    def __init__(self, laps: dict[str, float]) -> None:
        self._laps = laps
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name], self._last = now - self._last, now
