from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.measure.sample import EvalResult, RankFacts, RankSample
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
    skipped_steps=0,
    rss_bytes=300 * MIB,
    probe=False,
    phase_peak_bytes=None,
    reserved_bytes=None,
    host_bytes=None,
    nvme_bytes=None,
)
EVAL = EvalResult(step=1, time_unix_s=1002.0, loss=1.5, accuracy=0.75, n_samples=16, seconds=0.1)


@pytest.fixture
def facts() -> Callable[..., RankFacts]:
    return lambda **changes: replace(FACTS, **changes)


@pytest.fixture
def sample() -> Callable[..., RankSample]:
    return lambda **changes: replace(SAMPLE, **changes)


@pytest.fixture
def evaluation() -> Callable[..., EvalResult]:
    def make(**changes: Any) -> EvalResult:
        return replace(EVAL, **changes)

    return make
