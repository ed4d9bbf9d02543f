import pytest

from orchestrator.forecast.construction import init_moments
from orchestrator.forecast.layout import layout_of
from orchestrator.forecast.terms import fullest, n_bytes_of
from orchestrator.forecast.transients import step_moments, update_part
from tests.forecast.strategies import layered_profile, make_setup

# The model of tests/worker/test_memory.py.
SIZES = (64 * 1000, 1000, 1000 * 900, 900, 900 * 10, 10)
P = sum(SIZES)
L = 1000 * 900


def layout(setup, sizes=SIZES, *, rank=0):
    profile = layered_profile(sizes)
    return layout_of(profile, n_params=None, n_ranks=setup.n_ranks, rank=rank)


def step_peak(sizes=SIZES, *, rank=0, **changes):
    setup = make_setup(**changes)
    return n_bytes_of(fullest(step_moments(setup, layout(setup, sizes, rank=rank))))


def init_peak(sizes=SIZES, **changes):
    setup = make_setup(**changes)
    moments = init_moments(setup, layout(setup, sizes), build_peak_bytes=4 * sum(sizes))
    return n_bytes_of(fullest(moments))


@pytest.mark.parametrize(
    ("optimizer", "temporaries"),
    [("adamw", 2), ("adam", 3), ("sgd", 1), ("momentum", 1), ("rmsprop", 2), ("lion", 0)],
)
def test_an_update_in_a_loop_makes_so_many_tensors_of_the_largest_parameter_s_size(
    optimizer, temporaries
):
    part = update_part(make_setup(optimizer=optimizer), [100])
    assert (part.n_bytes, part.place) == (temporaries * 400, "device")


def test_the_loop_still_holds_the_denominator_of_the_parameter_before():
    # sqrt and quotient of the second, denominator of the first
    assert update_part(make_setup(), [10, 100]).n_bytes == 4 * (2 * 100 + 10)


def test_a_gpu_updates_all_parameters_at_once_and_makes_one_tensor_of_each():
    assert update_part(make_setup(device="cuda"), [10, 100]).n_bytes == 4 * 110


def test_a_fused_update_makes_nothing():
    assert update_part(make_setup(fused_optimizer=True), [100]).n_bytes == 0


def test_an_offloaded_update_without_deepspeed_s_kernel_makes_its_temporaries_on_the_host():
    part = update_part(make_setup(stage=2, offload_optimizer="cpu", device="cuda"), [100])
    assert (part.n_bytes, part.place) == (2 * 400, "host")


@pytest.mark.parametrize("stage", [1, 2])
def test_mixed_precision_updates_from_fp32_gradients_with_two_temporaries(stage):
    # 4 for the gradients and 8 for AdamW's loop, on half of the parameters
    assert step_peak(stage=stage, precision="bf16") / P == pytest.approx((4 + 8) / 2, rel=1e-4)


def test_the_norm_of_a_large_gradient_in_fp64_may_take_more_than_the_update():
    # SGD: a gradient and its copy are 4 + 4 on half of the parameters. Before that, the rank holds
    # whole the gradients that reach into its half, and 8 for its part of the largest one.
    owned = 64 * 1000 + 1000 + L
    part = P // 2 - 65_000
    assert step_peak(stage=2, optimizer="sgd", n_moments=0) == pytest.approx(
        4 * owned + 8 * part, abs=16
    )


def test_stage_0_holds_gradients_in_both_precisions():
    # 2 + 4, and two temporaries of the largest parameter
    expected = 6 * P + 4 * (2 * L + 1000)
    assert step_peak(stage=0, precision="bf16") == expected


def test_small_sub_groups_cut_the_step_of_stage_3():
    sizes = (1000,) * 10
    whole = step_peak(sizes, stage=3)
    assert whole == (4 + 8) * 5000
    assert step_peak(sizes, stage=3, sub_group_elements=500) == (4 + 8) * 500


def test_an_offloaded_update_leaves_the_device_alone_but_for_gloo_s_copy_of_the_weights():
    changes = {"stage": 2, "offload_optimizer": "cpu"}
    assert step_peak((50, 50), **changes) == 400
    assert step_peak((50, 50), device="cuda", **changes) == 0


def test_gradients_too_small_for_a_file_wait_on_the_device_in_fp32():
    changes = {"stage": 3, "offload_optimizer": "nvme", "precision": "bf16", "device": "cuda"}
    # 1 MiB is 262,144 elements: the first one's shard goes into a file.
    assert step_peak((600_000, 1000), **changes) == 4 * 500


@pytest.mark.parametrize(
    ("strategy", "bytes_per_parameter"),
    [
        # measured (MEMORY.md, 2.3): 2P + 8P/N at N = 2
        ({"stage": 2, "precision": "bf16"}, 6.0),
        # flat copy beside the weights
        ({"stage": 1}, 8),
        ({"stage": 2, "n_ranks": 8}, 8),
        ({"stage": 0}, 4),
        # weights, master weights, gradients in both types, moments
        ({"stage": 0, "precision": "bf16", "fused_optimizer": True}, 2 + 4 + 6 + 8),
        # never sharded: weights 2, halves of master weights 4, whole gradients 4
        ({"stage": 1, "precision": "bf16", "grad_accum_dtype": "fp32"}, 2 + 4 / 2 + 4),
    ],
    ids=str,
)
def test_building_the_engine_peaks_at_weights_and_copies(strategy, bytes_per_parameter):
    assert init_peak((1000,) * 64, device="cuda", **strategy) / 64_000 == pytest.approx(
        bytes_per_parameter, rel=0.03
    )


def test_a_model_is_built_in_fp32_on_the_cpu():
    assert init_peak((100,) * 10, stage=3, n_ranks=8, precision="bf16", device="cpu") >= 4 * 1000
