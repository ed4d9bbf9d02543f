"""Bytes counted by hand: a float32 takes 4."""

import gc

import pytest
import torch

from orchestrator.worker.allocations import (
    AllocationTrace,
    live_keys,
    live_storages,
    storage_key,
)


@pytest.fixture
def trace():
    """A trace that leaves out whatever other tests left behind."""
    return AllocationTrace(ignored=live_keys())


def peak_of(trace, host=()):
    return trace.peaks(host=host)[0]


def test_every_allocation_counts_in_its_phase(trace):
    with trace:
        trace.enter_phase("forward")
        first = torch.zeros(100)
        trace.enter_phase("backward")
        second = torch.zeros(50)
    assert peak_of(trace) == {"forward": 400, "backward": 600}
    del first, second


def test_what_lay_there_before_rests_in_every_phase():
    ignored, resting = live_keys(), torch.zeros(1000)
    trace = AllocationTrace(ignored=ignored, resting=[resting, resting[5:]])
    with trace:
        trace.enter_phase("forward")
        torch.zeros(10)
        trace.enter_phase("step")
    assert peak_of(trace) == {"forward": 4040, "step": 4000}
    del resting


def test_views_share_the_memory_they_look_at(trace):
    with trace:
        trace.enter_phase("forward")
        whole = torch.zeros(100)
        parts = [whole[10:], whole.view(10, 10), whole.t(), whole.expand(5, 100), whole.detach()]
    assert peak_of(trace) == {"forward": 400}
    del parts


def test_work_in_place_takes_nothing(trace):
    values = torch.zeros(100)
    with trace:
        trace.enter_phase("step")
        values.add_(1).mul_(2)
        torch.add(values, 1, out=values)
    assert peak_of(trace) == {"step": 400}


def test_freed_memory_is_given_back(trace):
    with trace:
        trace.enter_phase("forward")
        values = torch.zeros(100)
        del values
        values = torch.zeros(150)
        trace.enter_phase("backward")
        del values
        torch.zeros(10)
    assert peak_of(trace) == {"forward": 600, "backward": 600}


def test_a_view_keeps_the_memory_it_looks_at(trace):
    with trace:
        trace.enter_phase("forward")
        whole = torch.zeros(100)
        view = whole[:1]
        del whole
        trace.enter_phase("backward")
        other = torch.zeros(10)
    assert peak_of(trace) == {"forward": 400, "backward": 440}
    del view, other


def test_an_address_that_is_used_again_is_counted_again(trace):
    with trace:
        trace.enter_phase("forward")
        for _ in range(200):
            torch.zeros(100)
        kept = [torch.zeros(100) for _ in range(3)]
    assert peak_of(trace) == {"forward": 1200}
    del kept


def test_a_storage_that_grows_counts_in_full(trace):
    with trace:
        trace.enter_phase("forward")
        values = torch.zeros(100)
        values.resize_(250)
        trace.enter_phase("backward")
        torch.zeros(1)
    assert peak_of(trace) == {"forward": 1000, "backward": 1004}
    del values


def test_a_storage_emptied_by_hand_counts_nothing_once_it_is_seen_again():
    values = torch.zeros(100)
    with AllocationTrace(resting=[values]) as trace:
        trace.enter_phase("forward")
        values.untyped_storage().resize_(0)
        values.detach()
        trace.enter_phase("backward")
        torch.zeros(10)
    assert peak_of(trace) == {"forward": 400, "backward": 40}


def test_a_linear_layer_takes_what_it_takes_by_hand():
    x_BI, grad_BO = torch.ones(8, 30), torch.ones(8, 20)
    ignored = live_keys()
    layer = torch.nn.Linear(30, 20)
    trace = AllocationTrace(ignored=ignored, resting=layer.parameters())
    weights = 4 * (30 * 20 + 20)
    output = 4 * 8 * 20
    with trace:
        trace.enter_phase("forward")
        out_BO = layer(x_BI)
        trace.enter_phase("backward")
        out_BO.backward(grad_BO)
        trace.enter_phase("step")
        del out_BO
    # The input and the output's gradient lay there before and are ignored.
    assert peak_of(trace) == {
        "forward": weights + output,
        "backward": 2 * weights + output,
        "step": 2 * weights + output,
    }


def test_an_optimizer_brings_its_state():
    weights = torch.nn.Parameter(torch.zeros(1000))
    weights.grad = torch.ones(1000)
    trace = AllocationTrace(resting=[weights, weights.grad])
    optimizer = torch.optim.SGD([weights], lr=0.1, momentum=0.9, foreach=False)
    with trace:
        trace.enter_phase("step")
        optimizer.step()
        trace.enter_phase("backward")
    # weights, gradient, momentum
    assert peak_of(trace) == {"step": 12_000, "backward": 12_000}


def test_ignored_memory_is_never_counted():
    data = torch.zeros(1000)
    trace = AllocationTrace(ignored=live_keys())
    with trace:
        trace.enter_phase("data")
        data.view(10, 100)
        data.add_(1)
    assert peak_of(trace) == {"data": 0}


def test_memory_that_takes_the_place_of_ignored_memory_is_counted():
    data = [torch.zeros(1000) for _ in range(50)]
    trace = AllocationTrace(ignored=live_keys())
    del data
    with trace:
        trace.enter_phase("data")
        ours = [torch.zeros(1000) for _ in range(50)]
    assert peak_of(trace) == {"data": 200_000}
    del ours


def test_what_rests_on_the_host_is_told_apart_by_its_role():
    offloaded = torch.zeros(1000)
    with AllocationTrace(resting=[offloaded]) as trace:
        trace.enter_phase("forward")
        on_device = torch.zeros(10)
        trace.enter_phase("step")
        state = torch.zeros(500)
        staging = torch.zeros(5)
    assert trace.peaks(host=[offloaded, state]) == ({"forward": 40, "step": 60}, 6000)
    assert trace.peaks(host=[offloaded[:1], state.view(5, 100), state])[1] == 6000
    assert trace.peaks() == ({"forward": 4040, "step": 6060}, 0)
    del on_device, staging


def test_memory_in_a_circle_is_given_back_when_it_is_collected(trace):
    with trace:
        trace.enter_phase("forward")
        circle: list[object] = [torch.zeros(100)]
        circle.append(circle)
        del circle
        gc.collect()
        trace.enter_phase("backward")
        torch.zeros(10)
    assert peak_of(trace) == {"forward": 400, "backward": 40}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(10, device="meta"),
        lambda: torch.sparse_coo_tensor([[0, 1]], [1.0, 2.0], (1000,), check_invariants=False),
    ],
    ids=["meta", "sparse"],
)
def test_tensors_without_plain_memory_do_no_harm(trace, make):
    with trace:
        trace.enter_phase("forward")
        tensor = make()
    assert peak_of(trace)["forward"] < 100
    del tensor


def test_live_storages_finds_gradients_too():
    layer = torch.nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    found = live_storages()
    for parameter in layer.parameters():
        assert {storage_key(parameter), storage_key(parameter.grad)} <= found.keys()


def test_nothing_outside_the_window_counts(trace):
    with trace:
        trace.enter_phase("forward")
        values = torch.zeros(10)
    later = torch.zeros(1000)
    del values
    assert peak_of(trace) == {"forward": 40}
    del later
