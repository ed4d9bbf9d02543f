"""Our tables of refused keys against the installed DeepSpeed, whose import takes seconds."""

import pytest

from orchestrator.plan.deepspeed_config import deepspeed_config
from orchestrator.plan.deepspeed_keys import OWNED, REJECTED
from orchestrator.plan.deepspeed_settings import SETTINGS

STRATEGIES = [
    {"stage": 0},
    {"stage": 1, "offload_optimizer": "cpu"},
    {"stage": 2},
    {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
    {
        "stage": 3,
        "offload_optimizer": "nvme",
        "offload_params": "nvme",
        "nvme_path": "/nvme",
    },
]


def test_no_key_stands_in_two_tables():
    assert not OWNED.keys() & REJECTED.keys()
    assert not SETTINGS.keys() & (OWNED.keys() | REJECTED.keys())


@pytest.mark.ray
def test_what_deepspeed_removed_is_rejected(installed):
    assert set(installed._REMOVED_TOP_LEVEL_CONFIG_KEYS) <= REJECTED.keys()
    inner = {f"zero_optimization.{key}" for key in installed._REMOVED_ZERO_CONFIG_KEYS}
    assert inner <= REJECTED.keys()


@pytest.mark.ray
def test_what_is_called_removed_was_removed(installed):
    ours = {key for key, message in REJECTED.items() if message.startswith("DeepSpeed removed it")}
    inner = {f"zero_optimization.{key}" for key in installed._REMOVED_ZERO_CONFIG_KEYS}
    assert ours == set(installed._REMOVED_TOP_LEVEL_CONFIG_KEYS) | inner


@pytest.mark.ray
@pytest.mark.parametrize("zero", STRATEGIES, ids=repr)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deepspeed_reads_our_dict_as_it_is_meant(installed, plan, zero, precision):
    made = plan(zero=zero, training={"precision": precision}, resources={"workers": 1})
    ours = deepspeed_config(made.spec, batch=made.batch, n_params=4_000_000, device="cpu")
    read = installed.DeepSpeedConfig(ours)
    assert read.train_batch_size == 16
    assert read.train_micro_batch_size_per_gpu == 4
    assert read.gradient_accumulation_steps == 4
    assert read.gradient_clipping == 0.0
    assert read.steps_per_print is None
    assert read.bfloat16_config.enabled is (precision == "bf16")
    assert read.zero_config.stage == zero["stage"]
    for block, ours_name in (
        ("offload_optimizer", "offload_optimizer"),
        ("offload_param", "offload_params"),
    ):
        target = getattr(read.zero_config, block)
        assert (target.device if target else "none") == zero.get(ours_name, "none")
    if zero["stage"] == 3:
        on_nvme = zero.get("offload_params") == "nvme"
        assert read.zero_config.prefetch_bucket_size == (0 if on_nvme else 500_000)
        assert read.zero_config.max_reuse_distance == 1_000_000
        assert read.zero_config.param_persistence_threshold == 4000
