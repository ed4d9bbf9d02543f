import pytest

from orchestrator.forecast.layout import layout_of
from orchestrator.forecast.profile import ParameterShape
from orchestrator.forecast.states import ideal_states_bytes, nvme_bytes, resting_parts
from orchestrator.forecast.terms import ledger_at, n_bytes_of
from tests.forecast.strategies import layered_profile, make_profile, make_setup

GB = 1e9

# The model of tests/worker/test_memory.py: weights and biases of three layers.
SIZES = (64 * 1000, 1000, 1000 * 900, 900, 900 * 10, 10)
P = sum(SIZES)
L = 1000 * 900
B = P // 8


def resting(sizes=SIZES, *, rank=0, place="device", **changes):
    setup = make_setup(**changes)
    profile = layered_profile(sizes)
    layout = layout_of(profile, n_params=None, n_ranks=setup.n_ranks, rank=rank)
    parts = resting_parts(setup, layout, buffer_bytes=0)
    return ledger_at(parts, place=place)


def counted(n_params, **changes):
    setup = make_setup(**changes)
    layout = layout_of(None, n_params=n_params, n_ranks=setup.n_ranks, rank=0)
    return resting_parts(setup, layout, buffer_bytes=0)


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_a_stage_divides_what_figure_1_of_the_zero_paper_says(stage, gigabytes):
    n_bytes = ideal_states_bytes(7_500_000_000, stage=stage, n_ranks=64)
    assert n_bytes / GB == pytest.approx(gigabytes, abs=0.05)


# Rajbhandari et al., ZeRO (arXiv:1910.02054), table 1: GB at stages 1, 2 and 3. The paper cuts
# what it does not round.
TABLE_1 = {
    (7.5, 1): (120, 120, 120),
    (7.5, 4): (52.5, 41.3, 30),
    (7.5, 16): (35.6, 21.6, 7.5),
    (7.5, 64): (31.4, 16.6, 1.88),
    (7.5, 256): (30.4, 15.4, 0.47),
    (7.5, 1024): (30.1, 15.1, 0.12),
    (128, 1): (2048, 2048, 2048),
    (128, 4): (896, 704, 512),
    (128, 16): (608, 368, 128),
    (128, 64): (536, 284, 32),
    (128, 256): (518, 263, 8),
    (128, 1024): (513, 257, 2),
    (1000, 1): (16000, 16000, 16000),
    (1000, 4): (7000, 5500, 4000),
    (1000, 16): (4750, 2875, 1000),
    (1000, 64): (4187, 2218, 250),
    (1000, 256): (4046, 2054, 62.5),
    (1000, 1024): (4011, 2013, 15.6),
}


@pytest.mark.parametrize(("model", "expected"), TABLE_1.items(), ids=str)
def test_every_row_of_table_1_of_the_zero_paper_comes_out(model, expected):
    billions, n_ranks = model
    found = [
        ideal_states_bytes(int(billions * 1e9), stage=stage, n_ranks=n_ranks) / GB
        for stage in (1, 2, 3)
    ]
    assert found == pytest.approx(expected, rel=0.002, abs=0.06 if billions < 100 else 1)


def test_one_rank_gains_nothing_from_sharding():
    assert {ideal_states_bytes(10, stage=stage, n_ranks=1) for stage in range(4)} == {160}


@pytest.mark.parametrize(("stage", "n_ranks"), [(4, 2), (-1, 2), (1, 0)])
def test_an_ideal_needs_a_stage_and_a_rank(stage, n_ranks):
    with pytest.raises(ValueError, match=f"no stage {stage} on {n_ranks} ranks"):
        ideal_states_bytes(1, stage=stage, n_ranks=n_ranks)


# Bytes a parameter between steps of two real ranks, measured (MEMORY.md, section 2.2).
@pytest.mark.parametrize(
    ("strategy", "bytes_per_parameter"),
    [
        ({"stage": 0}, 12.02),
        ({"stage": 0, "precision": "bf16"}, 14.01),
        ({"stage": 1, "precision": "bf16"}, 8.01),
        ({"stage": 2, "precision": "bf16"}, 8.01),
        ({"stage": 1}, 10.02),
        ({"stage": 2}, 10.02),
        ({"stage": 1, "precision": "bf16", "grad_accum_dtype": "fp32"}, 12.01),
        ({"stage": 3, "precision": "bf16"}, 8.39),
        ({"stage": 3}, 10.78),
    ],
    ids=str,
)
def test_what_rests_is_what_two_real_ranks_were_measured_to_keep(strategy, bytes_per_parameter):
    n_params = 263_168
    parts = counted(n_params, reduce_bucket_elements=50_000, **strategy)
    assert n_bytes_of(parts) / n_params == pytest.approx(bytes_per_parameter, rel=0.003)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("strategy", "params", "optimizer", "gradients", "buffers"),
    [
        ({"stage": 0}, 4, 8, 0, 0),
        ({"stage": 0, "precision": "bf16"}, 2, 4 + 8, 0, 0),
        ({"stage": 2}, 4, (4 + 8) / 2, 0, 0),
        ({"stage": 2, "n_moments": 0, "optimizer": "sgd"}, 4, 4 / 2, 0, 0),
        ({"stage": 2, "n_moments": 1, "optimizer": "lion"}, 4, (4 + 4) / 2, 0, 0),
        ({"stage": 1, "precision": "bf16", "grad_accum_dtype": "fp32"}, 2, (4 + 8) / 2, 4, 0),
        ({"stage": 3}, 4 / 2, (4 + 8) / 2, 4 / 2, 4 * B / P),
        ({"stage": 3, "precision": "bf16"}, 2 / 2, (4 + 8) / 2, 2 / 2, 2 * B / P),
        (
            {"stage": 3, "precision": "bf16", "grad_accum_dtype": "fp32"},
            2 / 2,
            (4 + 8) / 2,
            4 / 2,
            2 * B / P,
        ),
        # bf16 states come with bf16 master weights
        ({"stage": 2, "precision": "bf16", "state_dtype": "bf16"}, 2, (2 + 4) / 2, 0, 0),
    ],
    ids=str,
)
def test_the_ledger_of_what_rests_is_the_accounting_by_hand(
    strategy, params, optimizer, gradients, buffers, rank
):
    ledger = resting(rank=rank, reduce_bucket_elements=B, **strategy)
    found = {name: size / P for name, size in ledger.items() if size}
    expected = {
        "params": params,
        "optimizer": optimizer,
        "gradients": gradients,
        "buffers": buffers,
    }
    assert found == pytest.approx({k: v for k, v in expected.items() if v}, rel=1e-4)


@pytest.mark.parametrize(
    ("strategy", "host"),
    [
        (
            {"stage": 2, "offload_optimizer": "cpu"},
            {"optimizer": (4 + 8) / 2, "buffers": 4 / 2 + 4 * L / P, "gradients": 4 / 2},
        ),
        (
            {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
            {"optimizer": (4 + 8) / 2, "params": 4 / 2, "gradients": (4 + 4) / 2},
        ),
    ],
    ids=str,
)
def test_the_host_has_what_was_offloaded(strategy, host):
    found = {name: n / P for name, n in resting(place="host", **strategy).items() if n}
    assert found == pytest.approx(host, rel=1e-4)


def test_an_offloaded_mixed_precision_adam_takes_18_bytes_a_parameter_and_share():
    # 4 master weights, 2 weights on their way back, 4 gradients, 8 moments (MEMORY.md, 2.3)
    setup = {"stage": 2, "precision": "bf16", "offload_optimizer": "cpu", "n_ranks": 8}
    parts = counted(8_000_000, **setup)
    assert n_bytes_of(p for p in parts if p.place == "host") == 18 * 1_000_000


def test_gradients_added_up_on_the_host_are_whole_parameters_at_stage_2_only():
    changes = {"offload_optimizer": "cpu", "accumulation_steps": 4, "place": "host"}
    # The second rank's half begins inside the largest parameter.
    touched = L + 900 + 9000 + 10
    assert resting(rank=1, stage=2, **changes)["gradients"] == pytest.approx(
        4 * P / 2 + 4 * touched, abs=16
    )
    assert resting(rank=1, stage=1, **changes)["gradients"] == pytest.approx(4 * P / 2, abs=16)


def test_page_locked_blocks_are_powers_of_two():
    changes = {"stage": 3, "offload_params": "cpu", "place": "host"}
    # 300 bytes of fp32 weights on each of two ranks
    assert resting((150,), **changes)["params"] == 300
    assert resting((150,), pinned=True, **changes)["params"] == 512


def test_stage_2_pads_the_group_and_stage_3_every_parameter():
    # 3 + 3 elements are padded to 8 = 4 ranks x 2, and to 4 each
    assert resting((3, 3), stage=2, n_ranks=4)["params"] == 4 * 8
    assert resting((3, 3), stage=3, n_ranks=4)["params"] == 4 * 2


def test_a_frozen_parameter_has_weights_and_no_optimizer_state():
    profile = make_profile((10, 10), ())
    frozen = ParameterShape(name="frozen", n_elements=10, trainable=False)
    profile = make_profile((10, 10), (), parameters=(profile.parameters[0], frozen))
    setup = make_setup(stage=0)
    layout = layout_of(profile, n_params=None, n_ranks=2, rank=0)
    ledger = ledger_at(resting_parts(setup, layout, buffer_bytes=7), place="device")
    assert ledger["params"] == 4 * 20 + 7
    assert ledger["optimizer"] == 8 * 10


def test_parameters_under_the_threshold_stay_gathered_with_their_padding():
    changes = {"stage": 3, "n_ranks": 4, "persistence_threshold_elements": 10}
    assert resting((9, 100), **changes)["gathered"] == 4 * 12
    assert resting((9, 100), **{**changes, "n_ranks": 1})["gathered"] == 0


def test_on_nvme_lies_what_is_worth_a_file():
    # Halves of master weights and both moments; of weights and gradients, the largest's (1 MiB).
    setup = make_setup(stage=3, offload_optimizer="nvme", offload_params="nvme")
    layout = layout_of(layered_profile(SIZES), n_params=None, n_ranks=2, rank=0)
    expected = (4 + 8) / 2 + (4 + 4) / 2 * L / P
    assert nvme_bytes(setup, layout) / P == pytest.approx(expected, rel=0.01)


def test_the_torch_engine_keeps_weights_and_moments():
    ledger = resting(engine="torch", stage=0)
    assert (ledger["params"], ledger["optimizer"]) == (4 * P, 8 * P)
