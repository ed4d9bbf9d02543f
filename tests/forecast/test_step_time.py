from dataclasses import replace

import pytest

from orchestrator.forecast.rates import Rates, rates_for
from orchestrator.forecast.step_time import Traffic, Work, exposed_s, step_time
from orchestrator.measure.devices import device_called

# One of everything a second, or a hundred, so that times can be told by eye.
RATES = Rates(
    flops_per_s=100.0,
    memory_bytes_per_s=10.0,
    alpha_s=0.5,
    beta_bytes_per_s=4.0,
    host_link_bytes_per_s=2.0,
    cpu_adam_elements_per_s=5.0,
    sources={
        "flops_per_s": "the book of flops",
        "memory_bytes_per_s": "the book of memory",
        "alpha_s": "the book of calls",
        "beta_bytes_per_s": "the book of wires",
        "host_link_bytes_per_s": "the book of links",
        "cpu_adam_elements_per_s": "the book of hosts",
    },
)
# Computes for 6 s, 2 of them forward and 4 backward; updates for 4 s.
WORK = Work(
    flops_per_micro_batch=300,
    accumulation_steps=2,
    update_elements=20,
    update_bytes_per_element=2.0,
    update_on_host=False,
    to_host_bytes=0,
    to_device_bytes=0,
    traffic=(),
)


def sent(phase, *, seconds, n_calls):
    """Calls of half a second each, and as many bytes as fill the rest."""
    n_bytes = round((seconds - 0.5 * n_calls) * 4)
    return Traffic(name="allreduce_", phase=phase, n_calls=n_calls, wire_bytes=n_bytes)


def estimate(*traffic, stage=2, overlap=True, **changes):
    work = replace(WORK, traffic=traffic, **changes)
    return step_time(work, rates=RATES, stage=stage, overlap=overlap)


def test_a_lone_rank_computes_every_micro_batch_and_updates():
    alone = estimate(stage=0)
    assert alone.compute_s == pytest.approx(6)
    assert alone.optimizer_s == pytest.approx(4)
    assert alone.total_s == pytest.approx(10)
    assert (alone.communication_s, alone.exposed_communication_s, alone.transfer_s) == (0, 0, 0)


def test_a_call_costs_its_start_and_its_bytes():
    gradients = Traffic(name="allreduce_", phase="step", n_calls=3, wire_bytes=8)
    assert estimate(gradients).communication_s == pytest.approx(3 * 0.5 + 8 / 4)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("overlap", [False, True])
def test_stages_0_and_1_hide_nothing(stage, overlap):
    gradients = sent("backward", seconds=3, n_calls=4)
    found = estimate(gradients, stage=stage, overlap=overlap)
    assert found.exposed_communication_s == found.communication_s == pytest.approx(3)
    assert found.total_s == pytest.approx(6 + 3 + 4)


@pytest.mark.parametrize("stage", [2, 3])
def test_without_overlap_nothing_is_hidden(stage):
    traffic = sent("forward", seconds=2, n_calls=4), sent("backward", seconds=3, n_calls=4)
    found = estimate(*traffic, stage=stage, overlap=False)
    assert found.exposed_communication_s == pytest.approx(5)


@pytest.mark.parametrize(
    ("seconds", "n_calls", "exposed"),
    [
        # 2 micro-batches of 4 buckets: 3 of 4 seconds of backward hide 3 of 4 of what is sent.
        (4, 8, 1),
        (8, 8, 5),
        # A single bucket is full when backward is over.
        (4, 2, 4),
    ],
)
def test_stage_2_hides_all_but_its_last_bucket_in_backward(seconds, n_calls, exposed):
    found = estimate(sent("backward", seconds=seconds, n_calls=n_calls))
    assert found.communication_s == pytest.approx(seconds)
    assert found.exposed_communication_s == pytest.approx(exposed)


def test_updated_weights_are_gathered_in_the_open():
    found = estimate(sent("backward", seconds=4, n_calls=8), sent("step", seconds=2, n_calls=1))
    assert found.exposed_communication_s == pytest.approx(1 + 2)


def test_only_stage_3_hides_what_is_sent_in_forward():
    weights = sent("forward", seconds=4, n_calls=8)
    assert estimate(weights, stage=2).exposed_communication_s == pytest.approx(4)
    # 3 of 4 of 2 seconds of forward.
    assert estimate(weights, stage=3).exposed_communication_s == pytest.approx(4 - 1.5)


def test_a_phase_that_computes_long_does_not_hide_what_another_sends():
    traffic = sent("forward", seconds=8, n_calls=8), sent("backward", seconds=2, n_calls=2)
    found = estimate(*traffic, stage=3)
    assert found.exposed_communication_s == pytest.approx((8 - 1.5) + 2)


@pytest.mark.parametrize("communication_s", [0.0, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("n_pieces", [1, 2, 10])
def test_what_is_exposed_lies_between_a_piece_and_all(communication_s, n_pieces):
    exposed = exposed_s(communication_s, compute_s=4, n_pieces=n_pieces)
    assert communication_s / n_pieces <= exposed <= communication_s


def test_more_compute_never_exposes_more():
    exposed = [exposed_s(3, compute_s=compute_s, n_pieces=5) for compute_s in range(6)]
    assert exposed == sorted(exposed, reverse=True)


def test_an_update_on_the_host_goes_by_weights_and_not_by_bytes():
    found = estimate(update_on_host=True, to_host_bytes=6, to_device_bytes=4)
    assert found.optimizer_s == pytest.approx(20 / 5)
    assert found.transfer_s == pytest.approx((6 + 4) / 2)
    assert found.total_s == pytest.approx(6 + 4 + 5)


def test_every_rate_that_counts_is_among_the_assumptions_and_no_other():
    everything = estimate(
        sent("backward", seconds=4, n_calls=8), to_host_bytes=1, update_on_host=True
    )
    said = " | ".join(everything.assumptions)
    for book in ("flops", "calls", "wires", "links", "hosts"):
        assert f"the book of {book}" in said
    assert "the book of memory" not in said
    assert "sent beside backward" in said
    assert [line.rpartition(": ")[2] for line in estimate(stage=0).assumptions] == [
        "the book of flops",
        "the book of memory",
    ]


def test_a_step_that_hides_nothing_says_so():
    said = estimate(sent("backward", seconds=4, n_calls=8), overlap=False).assumptions
    assert "nothing is sent while computing" in said


@pytest.mark.parametrize(("stage", "accumulation_steps"), [(4, 1), (-1, 1), (2, 0)])
def test_no_such_step_is_estimated(stage, accumulation_steps):
    with pytest.raises(ValueError, match="make no step"):
        estimate(stage=stage, accumulation_steps=accumulation_steps)


def test_a_1_3_billion_gpt_on_one_h100_takes_as_long_as_by_hand():
    # 6 operations a weight and token, 16,384 tokens; AdamW reads and writes 30 bytes a weight.
    work = replace(
        WORK,
        flops_per_micro_batch=round(6 * 1.3e9 * 16_384),
        accumulation_steps=1,
        update_elements=1_300_000_000,
        update_bytes_per_element=30.0,
    )
    h100 = device_called("h100")
    rates = rates_for(h100, precision="bf16", n_ranks=1, ranks_per_node=1, backend="nccl")
    found = step_time(work, rates=rates, stage=0, overlap=False)
    assert found.compute_s == pytest.approx(0.287, rel=0.01)  # 128 TFLOP at 445 TFLOP/s
    assert found.optimizer_s == pytest.approx(0.01454, rel=0.01)  # 39 GB at 2.68 TB/s
