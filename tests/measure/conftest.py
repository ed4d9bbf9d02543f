from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.measure.sample import EvalResult, NodeSample, RankFacts, RankSample
from orchestrator.units import MIB

FACTS = RankFacts(
    rank=0,
    world_size=2,
    node="node-a",
    device="cpu",
    pid=100,
    time_unix_s=1000.0,
    n_params=50,
    total_steps=4,
    n_train_samples=64,
    n_eval_samples=16,
    startup_s={"imports": 3.0, "engine": 1.0},
    init_peak_bytes=10 * MIB,
    init_peak_ledger=None,
    init_edge_ledger=None,
    init_rss_peak_bytes=None,
    init_pss_bytes=None,
    exact_rss=False,
)
SAMPLE = RankSample(
    rank=0,
    step=1,
    time_unix_s=1001.0,
    loss=2.0,
    lr=0.1,
    grad_norm=0.5,
    n_samples=8,
    n_tokens=None,
    step_s=0.5,
    data_s=0.05,
    forward_s=0.1,
    backward_s=0.2,
    optimizer_s=0.1,
    communication_s=None,
    logging_s=0.03,
    checkpoint_s=None,
    skipped_steps=0,
    rss_peak_bytes=300 * MIB,
    probe=False,
    phase_peak_bytes=None,
    probed=None,
    resident=None,
    host_bytes=None,
    nvme_bytes=None,
    container_peak_bytes=None,
    cuda=None,
    gpu=None,
    model_flops=None,
    peak_flops_per_s=None,
)
NODE = NodeSample(
    node="node-a",
    rank=0,
    time_unix_s=1001.0,
    number=0,
    values={"cpu_utilization_percentage": 40.0},
)
EVAL = EvalResult(step=1, time_unix_s=1002.0, loss=1.5, accuracy=0.75, n_samples=16, seconds=0.1)


@pytest.fixture
def facts() -> Callable[..., RankFacts]:
    return lambda **changes: replace(FACTS, **changes)


@pytest.fixture
def sample() -> Callable[..., RankSample]:
    return lambda **changes: replace(SAMPLE, **changes)


@pytest.fixture
def node_sample() -> Callable[..., NodeSample]:
    return lambda **changes: replace(NODE, **changes)


@pytest.fixture
def evaluation() -> Callable[..., EvalResult]:
    def make(**changes: Any) -> EvalResult:
        return replace(EVAL, **changes)

    return make
