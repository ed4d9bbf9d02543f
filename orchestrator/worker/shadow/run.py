"""The shadow run: one rank of a plan through its construction and three steps, on fake tensors.

The unmodified engine, any world size, no device and no memory for the model. Step 1 makes the
optimizer's state and lets ZeRO-3 learn its order, so it is discarded; steps 2 and 3 must agree.
"""

import os
import resource
import time
from collections.abc import Callable, Set
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

from orchestrator.data.build import build_data
from orchestrator.forecast.allocator import simulate
from orchestrator.forecast.allocator_settings import AllocatorSettings
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.shadow_result import DeviceMemory, SampleTensor, ShadowResult
from orchestrator.models.build import build_model
from orchestrator.models.checkpointing import enable_activation_checkpointing
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.worker.engine import Batch, Engine
from orchestrator.worker.engines import build_engine
from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.attribution import mark_all, tell_roles
from orchestrator.worker.probes.memory_probe import MemoryProbe
from orchestrator.worker.probes.storages import StorageKey, live_keys, storage_key
from orchestrator.worker.profile import trace_model
from orchestrator.worker.roles import module_roles
from orchestrator.worker.shadow.collectives import collectives_of
from orchestrator.worker.shadow.device_events import DeviceEvents
from orchestrator.worker.shadow.kernels import FakeFiles
from orchestrator.worker.shadow.operations import ShadowOperations
from orchestrator.worker.shadow.scratch import Scratch
from orchestrator.worker.shadow.shim import fake_tensors_allowed, sequences_not_packed

Sample = dict[str, SampleTensor]
MOST_MICRO_BATCHES = 3
"""The first makes gradients, later ones add to them, the last one reduces: more are alike."""


def shadow_run(
    plan: LaunchPlan,
    *,
    rank: int = 0,
    sample: Sample | None = None,
    allocator: AllocatorSettings = AllocatorSettings(),  # noqa: B008
    fake: bool = True,
) -> ShadowResult:
    """Run one rank of a plan on fake tensors.

    To be called in a process of its own: it takes the process group and the environment.

    Args:
        plan: what to run.
        rank: which of its ranks.
        sample: what a sample is made of; `None` to build the data and look.
        allocator: how CUDA's allocator is set.
        fake: `False` runs the same on real tensors, to test the shim by.

    Raises:
        UsageError: model or data cannot be built.
        DataDependentOutputException: the model looks at values.
    """
    began_s = time.perf_counter()
    sample = sample or sample_of(plan)
    short = as_run_by_shadow(plan)
    join_fake_group(rank=rank, world_size=plan.resources.workers)
    torch.set_num_threads(max(1, int(plan.resources.cpus_per_worker)))
    ignored = live_keys()
    gloo = plan.resources.device == "cpu"
    scratch = Scratch()
    watches = [ShadowOperations(scratch, gloo=gloo) for _ in range(3)]
    FakeFiles.sizes.clear()
    events = DeviceEvents()
    # In bf16 and fp16 a GPU rank casts its weights before it moves them: the copies are the GPU's.
    moves = not gloo and plan.spec.training.precision == "fp32"
    # A user's module may hold tensors that were made when it was imported.
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    try:
        with fake_tensors_allowed(moves_weights=moves, draws_weights=not fake), mode:
            trace, engine, n_params = _build(short, ignored, watches[0])
            events.end(trace)
            probes = []
            with sequences_not_packed():
                for watch in watches:
                    probe = MemoryProbe(
                        engine,
                        ignored=ignored,
                        operations=watch,
                        settle_s=0,
                        # A fake constant keeps its real value beside it.
                        kind=FakeTensor if fake else torch.Tensor,
                    )
                    events.begin(probe.trace)
                    watch.begin()
                    with probe.traced():
                        _step(engine, short, sample, enter=_both(probe, watch))
                        probe.end()
                    events.end(probe.trace)
                    probes.append(probe)
    finally:
        dist.destroy_process_group()
    # From here on tensors have values again, so that operations can be tried. The construction is
    # taken as a rank measures it: without what operations take for themselves.
    built = trace.result()
    _, second, third = (probe.held() for probe in probes)
    n_micro = short.batch.accumulation_steps
    return ShadowResult(
        rank=rank,
        n_params=n_params,
        peak_ledgers={**built.peaks, **third.peaks},
        host_ledger=max(built.host_peak, third.host_peak, key=lambda held: sum(held.values())),
        nvme_bytes=sum(FakeFiles.sizes.values()) if _uses_nvme(plan) else None,
        collectives=collectives_of(
            watches[2].sent, ran=n_micro, wanted=plan.batch.accumulation_steps
        ),
        flops_per_micro_batch=watches[2].flops // n_micro,
        device_memory=None if gloo else _device_memory(events, allocator),
        steps_agree=second.peak_bytes() == third.peak_bytes()
        and watches[1].sent == watches[2].sent,
        scratch_unknown_bytes=scratch.untried_bytes,
        micro_batch_size=plan.batch.micro_batch_size,
        sample=sample,
        seconds=time.perf_counter() - began_s,
        rss_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def profile_run(plan: LaunchPlan) -> ModelProfile:
    """Trace the bare model of a plan, for its micro-batch and one twice as large.

    Raises:
        UsageError: model or data cannot be built.
        NotTraceableError: the model looks at values.
    """
    training, size = plan.spec.training, plan.batch.micro_batch_size
    samples = build_data(plan.spec.data, folder=plan.folder).train
    torch.set_num_threads(max(1, int(plan.resources.cpus_per_worker)))
    batch = samples.batch(range(min(2, len(samples))))
    with fake_tensors_allowed():
        return trace_model(
            lambda: build_model(plan.spec.model, folder=plan.folder),
            batch,
            micro_batch_sizes=(size, 2 * size),
            precision=training.precision,
            activation_checkpointing=training.activation_checkpointing,
            loss=training.loss,
            scratch=plan.resources.device == "cpu",
        )


def _device_memory(events: DeviceEvents, settings: AllocatorSettings) -> DeviceMemory:
    made = simulate(events.events, settings=settings)
    return DeviceMemory(
        allocated_peak_bytes=made.allocated_peak_bytes,
        reserved_peak_bytes=made.reserved_peak_bytes,
        phase_reserved_bytes=made.phase_reserved_peak_bytes,
        fragmentation_bytes=made.fragmentation_bytes,
        n_segments=made.n_segments,
    )


def sample_of(plan: LaunchPlan) -> Sample:
    """Build the data and look at one sample.

    Raises:
        UsageError: the data cannot be built.
    """
    batch = build_data(plan.spec.data, folder=plan.folder).train.batch([0])
    first: dict[int, str] = {}
    sample = {}
    for name, value in batch.items():
        known_as = first.setdefault(storage_key(value), name)
        sample[name] = SampleTensor(
            shape=tuple(value.shape[1:]),
            dtype=str(value.dtype).removeprefix("torch."),
            same_as=known_as if known_as != name else None,
        )
    return sample


def as_run_by_shadow(plan: LaunchPlan) -> LaunchPlan:
    """The plan with what a shadow does not need taken away: equal micro-batches, pinned memory."""
    config = deepcopy(plan.deepspeed)
    n_micro = min(plan.batch.accumulation_steps, MOST_MICRO_BATCHES)
    batch = replace(
        plan.batch,
        accumulation_steps=n_micro,
        global_batch_size=plan.batch.micro_batch_size * n_micro * plan.batch.workers,
    )
    if config is not None:
        config["gradient_accumulation_steps"] = n_micro
        config["train_batch_size"] = batch.global_batch_size
        zero = config.get("zero_optimization", {})
        for block in ("offload_optimizer", "offload_param"):
            if zero.get(block):
                # Pinning changes where memory lies and how it is rounded, not what is asked for.
                zero[block]["pin_memory"] = False
        if plan.resources.device == "cuda" and _is_torch_adam(config):
            # What torch takes on a GPU by itself: one temporary where a loop on a CPU has two.
            config["optimizer"]["params"]["foreach"] = True
    return replace(plan, deepspeed=config, batch=batch)


def _is_torch_adam(config: dict[str, Any]) -> bool:
    optimizer = config.get("optimizer", {})
    return bool(optimizer.get("params", {}).get("torch_adam"))


def join_fake_group(*, rank: int, world_size: int) -> None:
    """Stand for one rank among others that are not there."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }
    dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())


def _build(
    plan: LaunchPlan, ignored: Set[StorageKey], watch: ShadowOperations
) -> tuple[AllocationTrace, Engine, int]:
    """Build model and engine as a rank does (`worker/rank.py`)."""
    trace = AllocationTrace(ignored=ignored, settle_s=0)
    # A GPU rank builds its model on the CPU.
    cuda = plan.resources.device == "cuda"
    with watch.watched(), trace:
        trace.enter_phase("init")
        with trace.made_elsewhere() if cuda else nullcontext():
            model = build_model(plan.spec.model, folder=plan.folder)
        if plan.spec.training.activation_checkpointing:
            enable_activation_checkpointing(model)
        n_params = sum(p.numel() for p in model.parameters() if p.requires_grad)
        mark_all(trace, module_roles(model))
        engine = build_engine(plan, model, device=torch.device("cpu"))
        tell_roles(trace, engine)
    return trace, engine, n_params


def _step(
    engine: Engine, plan: LaunchPlan, sample: Sample, *, enter: Callable[[str], None]
) -> None:
    """One optimizer step as the loop takes it (`worker/loop.py`)."""
    losses = []
    for index in range(plan.batch.accumulation_steps):
        enter("forward")
        batch: Batch = {}
        for name, tensor in sample.items():
            batch[name] = batch[tensor.same_as] if tensor.same_as else _zeros(tensor, plan)
        loss = engine.forward(batch)
        enter("backward")
        engine.backward(loss, last=index == plan.batch.accumulation_steps - 1)
        losses.append(loss.detach())
    enter("step")
    engine.step(lr=plan.spec.training.optimizer.lr)


def _zeros(tensor: SampleTensor, plan: LaunchPlan) -> torch.Tensor:
    shape = (plan.batch.micro_batch_size, *tensor.shape)
    return torch.zeros(shape, dtype=getattr(torch, tensor.dtype))


def _both(probe: MemoryProbe, watch: ShadowOperations) -> Callable[[str], None]:
    n_forwards = 0

    def enter(phase: str) -> None:
        nonlocal n_forwards
        n_forwards += phase == "forward"
        probe.enter(phase)
        watch.phase, watch.micro_batch = phase, n_forwards - 1

    return enter


def _uses_nvme(plan: LaunchPlan) -> bool:
    return "nvme" in (plan.spec.zero.offload_optimizer, plan.spec.zero.offload_params)
