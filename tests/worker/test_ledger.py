"""The ledger against what it did not make itself: torch's profiler, and accounting by hand.

The profiler sees every allocation of torch's CPU allocator, also those that C++ makes for itself.
"""

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.measure.ledger import Ledger, unattributed_ratio
from tests.worker.ranks import run_ranks

pytestmark = pytest.mark.ray

MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model": {"family": "gpt2", "config": {"n_embd": 64, "n_layer": 2, "n_head": 2}},
        "data": {"source": "text", "sequence_length": 128, "max_bytes": 200_000},
    },
    "resnet": {
        "model": {
            "family": "resnet",
            "config": {"embedding_size": 32, "hidden_sizes": [64, 128, 256], "depths": [1, 1, 1]},
        },
        "data": {"source": "digits", "image_size": 32},
    },
}
TRAINING = {"steps": 3, "global_batch_size": 32, "micro_batch_size": 8}
STRATEGIES = [
    {"stage": 0},
    {"stage": 1},
    {"stage": 2},
    {"stage": 3},
    {"stage": 1, "offload_optimizer": "cpu"},
    {"stage": 2, "offload_optimizer": "cpu"},
    {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
]
CLOSE = 0.01


@dataclass
class Traced:
    """One rank: a step by the ledger, and steps like it by the profiler."""

    rank: int
    ledger_bytes: int
    resting_bytes: int
    profiled_growth_bytes: int
    peaks: dict[str, Ledger]
    edges: dict[str, Ledger]


N_PROFILED = 2
GLOO_LETS_GO_S = 0.002
AT_REST_S = 0.05


def trace_and_profile(plan, place, *, put):
    """Take a first step, trace the second, and let torch's profiler look at those after it."""
    import torch

    from orchestrator.data.build import build_data
    from orchestrator.models.build import build_model
    from orchestrator.models.checkpointing import enable_activation_checkpointing
    from orchestrator.worker.engines import build_engine
    from orchestrator.worker.place import join_process_group
    from orchestrator.worker.probes.memory_probe import MemoryProbe
    from orchestrator.worker.probes.storages import live_keys, live_storages

    device = torch.device("cpu")
    join_process_group(place, device=device, timeout_s=60)
    samples = build_data(plan.spec.data, folder=plan.folder).train
    n_micro, size = plan.batch.accumulation_steps, plan.batch.micro_batch_size
    ignored = live_keys()

    def step(enter):
        for index in range(n_micro):
            enter("forward")
            first = (place.rank * n_micro + index) * size
            loss = engine.forward(samples.batch(range(first, first + size)))
            enter("backward")
            engine.backward(loss, last=index == n_micro - 1)
        del loss
        enter("step")
        engine.step(lr=1e-3)

    model = build_model(plan.spec.model, folder=plan.folder)
    if plan.spec.training.activation_checkpointing:
        enable_activation_checkpointing(model)
    engine = build_engine(plan, model, device=device)
    step(lambda _phase: None)
    gc.collect()
    # What gloo's threads still hold is no part of what rests between steps.
    time.sleep(AT_REST_S)
    left = [tensor for key, tensor in live_storages().items() if key not in ignored]
    resting_bytes = sum(t.untyped_storage().nbytes() for t in left if t.device.type == "cpu")
    del left
    probe = MemoryProbe(engine, ignored=ignored)
    with probe.traced():
        step(probe.enter)
        probe.end()
    held = probe.held()
    with collectives_let_go():
        growths = [_profiled_growth(lambda: step(lambda _phase: None)) for _ in range(N_PROFILED)]
    put(
        Traced(
            rank=place.rank,
            ledger_bytes=held.together_peak_bytes,
            resting_bytes=resting_bytes,
            # What gloo's threads let go of too late all the same can only make it larger.
            profiled_growth_bytes=min(growths),
            peaks=held.peaks,
            edges=held.edges,
        )
    )


@contextmanager
def collectives_let_go():
    """Wait after every collective until gloo's threads have let go of its tensors.

    The profiler does not see what another thread gives back, and takes it for held to the end.
    """
    from torch.distributed import Work

    wait = Work.wait

    def wait_and_rest(work, *timeout):
        done = wait(work, *timeout)
        time.sleep(GLOO_LETS_GO_S)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "wait", wait_and_rest)
        yield


def _profiled_growth(step):
    """The largest running sum of what torch's CPU allocator gave out and took back in a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, n_bytes in changes:
        held += n_bytes
        peak = max(peak, held)
    return peak


def traced(plan, model, zero, **training):
    outcome = run_ranks(
        plan(**MODELS[model], zero=zero, training={**TRAINING, **training}),
        work=trace_and_profile,
    )
    assert outcome.errors == {}
    return sorted(outcome.records, key=lambda one: one.rank)


def check(ranks):
    assert len(ranks) == 2
    for one in ranks:
        expected = one.resting_bytes + one.profiled_growth_bytes
        assert one.ledger_bytes == pytest.approx(expected, rel=CLOSE)
        for ledger in (*one.peaks.values(), *one.edges.values()):
            ratio = unattributed_ratio(ledger)
            assert ratio is not None
            assert ratio < CLOSE


@pytest.mark.parametrize("zero", STRATEGIES, ids=lambda zero: "-".join(map(str, zero.values())))
@pytest.mark.parametrize("model", MODELS)
def test_the_categories_add_up_to_what_the_profiler_saw(plan, model, zero):
    check(traced(plan, model, zero))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "training",
    [{"precision": "bf16"}, {"activation_checkpointing": True}],
    ids=["bf16", "checkpointing"],
)
def test_they_do_in_bf16_and_with_recomputation_too(plan, stage, training):
    check(traced(plan, "gpt2", {"stage": stage}, **training))
