import time
from dataclasses import replace

import pytest
import torch

from orchestrator.measure.sample import PHASES, RankSpeed
from orchestrator.worker.meter import Meter, probe_steps
from orchestrator.worker.torch_engine import TorchEngine

SPEED = RankSpeed(
    rank=0,
    time_unix_s=1.0,
    model_flops=1e9,
    peak_flops_per_s=2e9,
    peak_source="a guess",
    batch_norm=False,
    draws_random=None,
)


@pytest.fixture
def meter_for(plan):
    """A meter of an engine that does nothing."""
    engine = TorchEngine(
        plan(training={"engine": "torch"}), torch.nn.Linear(2, 2), device=torch.device("cpu")
    )

    def make(total_steps):
        return Meter(
            engine,
            total_steps=total_steps,
            ignored=set(),
            find_speed=lambda _batch, draws_random: replace(SPEED, draws_random=draws_random),
        )

    return make


@pytest.fixture
def costs(meter_for):
    """Run steps that do a little in each part."""

    def run(total_steps):
        meter = meter_for(total_steps)
        measured = []
        parts = ("data", "forward", "backward", "data", "forward", "backward", "optimizer")
        for step in range(1, total_steps + 1):
            with meter.begin(step):
                for part in parts:
                    meter.enter(part)
                    torch.zeros(1000)
                meter.end()
            measured.append(meter.leave())
        return measured

    return run


@pytest.mark.parametrize(
    ("total_steps", "expected"),
    [(1, (1, 1, 1)), (2, (2, 2, 2)), (3, (2, 3, 3)), (4, (2, 3, 4)), (1000, (2, 3, 4))],
)
def test_the_probes_are_early_and_not_the_first_if_that_can_be(total_steps, expected):
    probes = probe_steps(total_steps)
    assert (probes.memory, probes.collectives, probes.resident) == expected
    assert all(step in probes for step in expected)
    assert 5 not in probes


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("total_steps", [1, 2, 3, 5])
def test_every_run_measures_memory_once(costs, total_steps):
    measured = costs(total_steps)
    traced = [cost for cost in measured if cost.phase_peak_bytes is not None]
    assert len(traced) == 1
    assert set(traced[0].phase_peak_bytes) == set(PHASES) - {"init"}
    assert traced[0].host_bytes == 0
    assert all(peak >= 4000 for peak in traced[0].phase_peak_bytes.values())
    assert traced[0].probe


@pytest.mark.usefixtures("one_rank")
def test_each_probe_has_a_step_of_its_own_and_no_ordinary_step_is_one(costs):
    measured = costs(6)
    assert [cost.probe for cost in measured] == [False, True, True, True, False, False]
    assert [cost.probed is not None for cost in measured].index(True) == 1
    assert [cost.communication_s is not None for cost in measured].index(True) == 2
    assert [cost.resident is not None for cost in measured].index(True) == 3
    for name in ("probed", "communication_s", "resident"):
        assert sum(getattr(cost, name) is not None for cost in measured) == 1
    # A group of one talks to nobody; the barrier that starts the probe is left out.
    assert measured[2].communication_s == 0


@pytest.mark.usefixtures("one_rank")
def test_the_parts_of_a_step_are_less_than_the_whole(costs):
    for cost in costs(5):
        assert set(cost.part_s) == {"data", "forward", "backward", "optimizer", "logging"}
        assert 0 < sum(cost.part_s.values()) <= cost.step_s
        assert cost.rss_peak_bytes > 10_000_000
        assert cost.cuda is None
        assert cost.gpu is None


def timed(meter, step, *, parts=()):
    with meter.begin(step):
        for part, seconds in parts:
            meter.enter(part)
            time.sleep(seconds)
        meter.end()
    return meter.leave()


def test_steps_follow_each_other_without_a_gap_unless_resumed(meter_for):
    meter = meter_for(100)
    first = timed(meter, 10)
    time.sleep(0.05)
    second = timed(meter, 11)
    time.sleep(0.05)
    meter.resume()
    third = timed(meter, 12)
    assert first.step_s < 0.05 <= second.step_s
    assert second.part_s["logging"] >= 0.05
    assert third.step_s < 0.05
    assert third.part_s["logging"] < 0.05


def test_time_goes_to_the_part_it_was_spent_in(meter_for):
    parts = (("data", 0.0), ("forward", 0.03), ("data", 0.06), ("backward", 0.0))
    cost = timed(meter_for(100), 10, parts=parts)
    assert cost.part_s["data"] >= 0.06
    assert 0.03 <= cost.part_s["forward"] < 0.06


@pytest.mark.usefixtures("one_rank")
def test_the_memory_probe_tells_ledgers_that_add_up(costs):
    (cost,) = [cost for cost in costs(3) if cost.probed is not None]
    phases = {"forward", "backward", "step"}
    assert cost.probed.peak_ledgers.keys() == cost.probed.edge_ledgers.keys() == phases
    for phase, ledger in cost.probed.peak_ledgers.items():
        assert sum(ledger.values()) == cost.phase_peak_bytes[phase]
        assert ledger["params"] == 4 * (2 * 2 + 2)
    assert {moment.phase for moment in cost.timeline} == phases


@pytest.mark.usefixtures("one_rank")
def test_the_probe_of_resident_memory_tells_of_each_phase(costs):
    (resident,) = [cost.resident for cost in costs(4) if cost.resident is not None]
    assert resident.peak_bytes.keys() == {"forward", "backward", "step"}
    for phase, peak_bytes in resident.peak_bytes.items():
        assert 0 < resident.pss_bytes[phase] <= peak_bytes
        assert resident.start_bytes <= peak_bytes * 1.01


@pytest.mark.usefixtures("one_rank")
def test_speed_is_asked_for_once_after_the_last_probe_and_takes_no_step_s_time(meter_for):
    meter = meter_for(6)
    over = []
    for step in range(1, 6):
        timed(meter, step)
        over.append(meter.probes_are_over)
    assert over == [False, False, False, True, True]
    assert meter.speed is None
    time.sleep(0.05)
    assert meter.find_speed({}) == meter.speed == SPEED
    assert timed(meter, 6).step_s < 0.05


@pytest.mark.parametrize(("draw", "expected"), [(torch.rand, True), (torch.zeros, False)])
def test_a_forward_that_draws_random_numbers_is_noticed(meter_for, draw, expected):
    meter = meter_for(1)
    with meter.begin(1):
        meter.enter("data")
        torch.rand(3)  # such as a dataset that augments: not the model's
        meter.enter("forward")
        draw(3)
        meter.enter("backward")
        meter.enter("optimizer")
        meter.end()
    meter.leave()
    assert meter.find_speed({}).draws_random is expected
