import time

import pytest
import torch

from orchestrator.measure.sample import PHASES
from orchestrator.worker.meter import Meter, probe_steps, resident_bytes


def meter_for(total_steps):
    device = torch.device("cpu")
    return Meter(device, total_steps=total_steps, ignored=set(), offloaded=lambda: ())


def costs(total_steps):
    """Run steps that do a little in each part."""
    meter = meter_for(total_steps)
    measured = []
    for step in range(1, total_steps + 1):
        with meter.begin(step):
            for part in ("data", "forward", "backward", "data", "forward", "backward", "optimizer"):
                meter.enter(part)
                torch.zeros(1000)
            cost = meter.end()
        measured.append((cost, meter.leave()))
    return measured


@pytest.mark.parametrize(
    ("total_steps", "expected"), [(1, (1, 1)), (2, (2, 2)), (3, (2, 3)), (1000, (2, 3))]
)
def test_the_probes_are_early_and_not_the_first_if_that_can_be(total_steps, expected):
    assert probe_steps(total_steps) == expected


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("total_steps", [1, 2, 3, 5])
def test_every_run_measures_memory_once(total_steps):
    measured = costs(total_steps)
    traced = [cost for cost, _ in measured if cost.phase_peak_bytes is not None]
    assert len(traced) == 1
    assert set(traced[0].phase_peak_bytes) == set(PHASES) - {"init"}
    assert traced[0].host_bytes == 0
    assert all(peak >= 4000 for peak in traced[0].phase_peak_bytes.values())
    assert traced[0].probe


@pytest.mark.usefixtures("one_rank")
def test_collectives_are_timed_once_and_no_ordinary_step_is_a_probe():
    measured = costs(5)
    assert [cost.probe for cost, _ in measured] == [False, True, True, False, False]
    timed = [communication_s is not None for _, communication_s in measured]
    assert timed == [False, False, True, False, False]
    # A group of one talks to nobody; the barrier that starts the probe is left out.
    assert measured[2][1] == 0


@pytest.mark.usefixtures("one_rank")
def test_the_parts_of_a_step_are_less_than_the_whole():
    for cost, _ in costs(5):
        assert set(cost.part_s) == {"data", "forward", "backward", "optimizer"}
        assert 0 < sum(cost.part_s.values()) <= cost.step_s
        assert cost.rss_bytes > 10_000_000
        assert cost.reserved_bytes is None


def test_steps_follow_each_other_without_a_gap_unless_resumed():
    meter = meter_for(100)
    with meter.begin(10):
        first = meter.end()
    time.sleep(0.05)
    with meter.begin(11):
        second = meter.end()
    time.sleep(0.05)
    meter.resume()
    with meter.begin(12):
        third = meter.end()
    assert first.step_s < 0.05 <= second.step_s
    assert third.step_s < 0.05


def test_time_goes_to_the_part_it_was_spent_in():
    meter = meter_for(100)
    with meter.begin(10):
        for part, seconds in (("data", 0.0), ("forward", 0.03), ("data", 0.06), ("backward", 0.0)):
            meter.enter(part)
            time.sleep(seconds)
        cost = meter.end()
    assert cost.part_s["data"] >= 0.06
    assert 0.03 <= cost.part_s["forward"] < 0.06


def test_resident_bytes_see_an_allocation_that_is_written_to():
    before = resident_bytes()
    values = torch.ones(25_000_000)
    assert resident_bytes() - before == pytest.approx(100_000_000, rel=0.1)
    del values
