from dataclasses import replace

import pytest

from orchestrator.measure.summary import summarize
from orchestrator.measure.throughput import over_rounds


@pytest.fixture
def record(facts, sample):
    """A run of 10 samples/s, 100 tokens/s, whose model does 1,000 operations a second."""
    told = [
        sample(step=step, n_samples=10, n_tokens=100, step_s=1.0, model_flops=1000.0)
        for step in range(1, 6)
    ]
    return summarize([facts(world_size=1), *told], name="x", outcome="ok", started_unix_s=0.0)


def test_all_rates_are_those_of_all_rounds(record):
    both = over_rounds(record, [(10.0, 10.0, 10.0), (20.0, 20.0, 30.0, 20.0)])
    assert both.samples_per_s == 20.0
    assert both.samples_per_s_quartiles == (10.0, 20.0)
    assert (both.tokens_per_s, both.flops_per_s) == (200.0, 2000.0)
    assert both.losses == record.losses


@pytest.mark.parametrize("rounds", [[], [(5.0,)], [(), ()]])
def test_a_run_of_one_round_keeps_its_own_rates(record, rounds):
    assert over_rounds(record, rounds) == record


def test_what_was_not_measured_is_not_made_up(record):
    unknown = replace(record, samples_per_s=None)
    assert over_rounds(unknown, [(1.0,), (2.0,)]) == unknown
