from dataclasses import replace

import pytest

from orchestrator.forecast.step_estimate import estimate_step, flops_of
from orchestrator.forecast.wire import WireTerm
from orchestrator.measure.devices import device_called
from tests.forecast.made_up import make_shadow
from tests.forecast.strategies import layered_moments, make_profile, make_setup, make_trace

H100 = device_called("h100")
GPU = {"device": "cuda", "n_ranks": 4, "ranks_per_node": 4}
P = 10**9


def estimate(wire=(), *, flops=10**12, gpu=H100, **changes):
    setup = make_setup(**{**GPU, **changes})
    return estimate_step(setup, wire, flops=flops, n_params=P, device=gpu)


def on_cpu(wire=(), **changes):
    made = estimate_step(make_setup(**changes), wire, flops=10**12, n_params=1000, device=None)
    assert made is not None
    return made


def sent(n_bytes, *, phase="backward", n_calls=100):
    return WireTerm(
        collective="all_reduce",
        n_calls=n_calls,
        payload_bytes=n_bytes,
        wire_bytes=n_bytes,
        phase=phase,
        what="gradients",
        source="",
    )


def profile_of(flops):
    trace = replace(make_trace(layered_moments(1)), flops=flops)
    return make_profile([10], [trace])


def test_a_shadow_run_counts_what_it_computed_for_every_micro_batch():
    shadow = make_shadow(flops_per_micro_batch=300)
    setup = make_setup(accumulation_steps=4, activation_checkpointing=True)
    # Recomputation is in it already.
    assert flops_of(setup, shadow=shadow, profile=profile_of(1)) == 1200


def test_recomputation_adds_another_forward_to_a_bare_model_s_count():
    # Of 300 operations 100 are forward.
    profile = profile_of(300)
    assert flops_of(make_setup(accumulation_steps=2), shadow=None, profile=profile) == 600
    again = make_setup(accumulation_steps=2, activation_checkpointing=True)
    assert flops_of(again, shadow=None, profile=profile) == 800


def test_without_a_model_nothing_tells_what_is_computed():
    assert flops_of(make_setup(), shadow=None, profile=None) is None


def test_where_work_or_rate_is_unknown_so_is_the_step():
    assert estimate(flops=None) is None
    # A GPU that nobody knows is not as slow as a CPU.
    assert estimate(gpu=None) is None
    # A V100's tensor cores have no bf16.
    assert estimate(gpu=device_called("v100"), precision="bf16") is None
    assert estimate(gpu=device_called("v100"), precision="fp16") is not None


def test_compute_takes_its_share_of_the_data_sheet_s_rate():
    # 989.4 TFLOP/s dense in bf16, of which Megatron reached 45 %.
    made = estimate(flops=10**15, precision="bf16")
    assert made.compute_s == pytest.approx(1e15 / (0.45 * 989.4e12))


def test_accumulation_does_not_compute_more_than_was_counted():
    assert estimate(accumulation_steps=4).compute_s == estimate(accumulation_steps=1).compute_s


@pytest.mark.parametrize(
    ("changes", "bytes_per_weight"),
    [
        # Weight, gradient and two moments are read, all but the gradient written.
        ({"precision": "fp32"}, 16 + 12),
        # And the bf16 weight is written.
        ({"precision": "bf16"}, 16 + 12 + 2),
        ({"precision": "bf16", "state_dtype": "bf16"}, 12 + 8 + 2),
        ({"precision": "fp32", "optimizer": "momentum", "n_moments": 1}, 12 + 8),
        ({"precision": "fp32", "optimizer": "sgd", "n_moments": 0}, 8 + 4),
    ],
    ids=str,
)
def test_an_update_streams_what_it_reads_and_writes(changes, bytes_per_weight):
    # An H100 streams 3,352 GB/s at most, of which four fifths are taken.
    expected_s = P * bytes_per_weight / (0.8 * 3352e9)
    assert estimate(**changes).optimizer_s == pytest.approx(expected_s)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_sharded_optimizer_updates_a_rank_s_share(stage):
    assert estimate(stage=stage).optimizer_s == pytest.approx(estimate(stage=0).optimizer_s / 4)


def test_an_offloaded_optimizer_updates_on_the_host_which_its_ranks_share():
    made = estimate(stage=2, offload_optimizer="cpu", precision="bf16")
    # 1.4e9 weights a second of a host, a quarter of them for this rank's quarter of the weights.
    assert made.optimizer_s == pytest.approx((P / 4) / (1.4e9 / 4))


def test_gradients_go_to_the_host_every_micro_batch_and_weights_come_back_once():
    made = estimate(stage=2, offload_optimizer="cpu", precision="bf16", accumulation_steps=3)
    # A share of 0.5 GB four times over, by PCIe 5 at four fifths of its 64 GB/s.
    assert made.transfer_s == pytest.approx(4 * 2 * P / 4 / (0.8 * 64e9))
    assert estimate(stage=2).transfer_s == 0


def test_on_a_cpu_offloading_moves_nothing():
    made = on_cpu(stage=2, offload_optimizer="cpu")
    assert made == on_cpu(stage=2)
    assert made.transfer_s == 0


def test_a_cpu_has_no_second_stream_to_hide_what_it_sends():
    made = on_cpu((sent(10**6),), stage=2, overlap_comm=True)
    assert made.communication_s > 0
    assert made.exposed_communication_s == made.communication_s


def test_a_gpu_hides_in_backward_what_stage_2_sends_there_only_if_told_to():
    wire = (sent(10**9),)
    hidden = estimate(wire, stage=2, overlap_comm=True, flops=10**15)
    shown = estimate(wire, stage=2, overlap_comm=False, flops=10**15)
    assert hidden.communication_s == shown.communication_s > 0
    assert shown.exposed_communication_s == shown.communication_s
    assert hidden.exposed_communication_s < shown.exposed_communication_s
    assert hidden.total_s < shown.total_s


def test_every_call_costs_its_start():
    few, many = (estimate((sent(10**9, n_calls=n),)) for n in (1, 1001))
    assert many.communication_s > few.communication_s
