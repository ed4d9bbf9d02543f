"""Bytes counted by hand: a float32 takes 4."""

import gc

import pytest
import torch

from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.replay import BY_ROLE, BY_USE
from orchestrator.worker.probes.storages import live_keys, live_storages, storage_key


@pytest.fixture
def trace():
    """A trace that knows of nothing before it is on."""
    return AllocationTrace()


def peak_of(trace):
    return trace.result().peak_bytes()


def peak_ledger(trace, phase):
    """What filled a phase's peak, without the lines of nothing."""
    return {name: size for name, size in trace.result().peaks[phase].items() if size}


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
    assert peak_of(trace) == {"forward": 4040, "step": 6060}
    assert trace.result().host_bytes == 0
    for tensor in (offloaded[:1], state.view(5, 100), state):
        trace.mark(tensor, "optimizer", on_host=True)
    assert peak_of(trace) == {"forward": 40, "step": 60}
    assert trace.result().host_peak["optimizer"] == trace.result().host_bytes == 6000
    del on_device, staging


def test_the_ledger_adds_up_to_the_peak_and_names_what_fills_it():
    ignored = live_keys()
    weights = torch.zeros(1000, requires_grad=True)
    with AllocationTrace(ignored=ignored, resting=[weights]) as trace:
        trace.mark(weights, "params")
        trace.enter_phase("forward")
        out = (weights * torch.ones(1000)).sum()
        trace.enter_phase("backward")
        out.backward()
        trace.mark(weights.grad, "gradients")
        trace.enter_phase("step")
    # Ones, their product, and the sum; then the gradient instead of the product.
    assert peak_ledger(trace, "forward") == {"params": 4000, "activations": 8004}
    assert trace.result().edges["step"]["gradients"] == 4000
    for phase, ledger in trace.result().peaks.items():
        assert sum(ledger.values()) == peak_of(trace)[phase]
    del out


def test_what_was_there_before_and_has_no_role_is_unattributed():
    named, unknown = torch.zeros(100), torch.zeros(25)
    with AllocationTrace(resting=[named, unknown]) as trace:
        trace.mark(named, "optimizer")
        trace.enter_phase("forward")
        torch.zeros(1)
    assert peak_ledger(trace, "forward") == {
        "optimizer": 400,
        "activations": 4,
        "unattributed": 100,
    }
    del named, unknown


def test_what_backward_leaves_behind_without_a_role_is_no_temporary(trace):
    with trace:
        trace.enter_phase("backward")
        kept = torch.zeros(10)
        torch.zeros(100)
        with torch.no_grad():
            passing = torch.zeros(50)
        del passing
    held = trace.result()
    assert held.edges["backward"]["unattributed"] == 40
    assert held.edges["backward"]["temporaries"] == 0
    del kept


def test_what_is_computed_again_in_backward_is_activations(trace):
    weights = torch.ones(1000, requires_grad=True)

    def block(x):
        return (x * 3).tanh()

    with trace:
        trace.enter_phase("forward")
        out = torch.utils.checkpoint.checkpoint(block, weights, use_reentrant=False).sum()
        trace.enter_phase("backward")
        out.backward()
    held = trace.result()
    # The product and its tangent are there again; the gradients on their way are temporaries.
    assert held.peaks["backward"]["activations"] >= 4000
    assert held.edges["forward"]["activations"] < 8000
    del out


def test_the_surest_word_on_a_storage_stands(trace):
    with trace:
        trace.enter_phase("backward")
        values = torch.zeros(10)
        for category, certainty in (("buffers", BY_ROLE), ("gradients", BY_USE)):
            trace.mark(values, category, certainty=certainty)
    assert peak_ledger(trace, "backward") == {"buffers": 40}
    trace.mark(values, "optimizer", certainty=BY_ROLE)
    assert peak_ledger(trace, "backward") == {"optimizer": 40}


def test_marking_what_was_never_seen_changes_nothing(trace):
    elsewhere = torch.zeros(10)
    with trace:
        trace.enter_phase("forward")
        trace.mark(elsewhere, "params")
    assert trace.result().peaks["forward"]["params"] == 0


def test_what_an_offloaded_update_makes_counts_on_the_host(trace):
    with trace:
        trace.enter_phase("step")
        torch.zeros(10)
        with trace.made_on_host():
            torch.zeros(1000)
        torch.zeros(20)
    assert peak_of(trace) == {"step": 80}
    assert trace.result().host_bytes == 4000


@pytest.mark.usefixtures("one_rank")
def test_operands_of_a_collective_are_buffers_and_what_it_gathers_is_gathered(trace):
    with trace:
        trace.enter_phase("step")
        bucket, gathered = torch.zeros(100), torch.zeros(30)
        torch.distributed.all_reduce(bucket)
        torch.distributed.all_gather([gathered], torch.zeros(30))
    assert trace.result().edges["step"]["buffers"] == 400
    assert trace.result().edges["step"]["gathered"] == 120


def test_edges_are_those_of_the_last_time_a_phase_ended(trace):
    with trace:
        for n_values in (10, 20):
            trace.enter_phase("forward")
            kept = torch.zeros(n_values)
            trace.enter_phase("backward")
            del kept
    edges = trace.result().edges
    assert edges["forward"]["activations"] == 80
    assert sum(edges["backward"].values()) == 0


def test_the_timeline_keeps_every_peak_and_every_change_of_phase(trace):
    with trace:
        for _ in range(3):
            trace.enter_phase("forward")
            kept = [torch.zeros(size) for size in range(1, 400)]
            trace.enter_phase("backward")
            kept.clear()
    held = trace.result(n_moments=20)
    assert len(held.timeline) <= 20 + 2 * 3
    seconds = [moment.at_s for moment in held.timeline]
    assert seconds == sorted(seconds)
    for phase, peak in held.peak_bytes().items():
        of_phase = [sum(m.ledger.values()) for m in held.timeline if m.phase == phase]
        assert max(of_phase) == peak
    assert next(m.phase for m in held.timeline) == "forward"
    assert trace.result().timeline == ()


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
