import pytest

from orchestrator.plan.forecast_setup import setup_of
from orchestrator.plan.resources import Machine

GPUS = Machine(n_cpus=64, n_gpus=64, name="a cluster")
OFFLOAD = {"stage": 2, "offload_optimizer": "cpu"}


@pytest.fixture
def setup(plan):
    """The setup of the small job with some sections changed."""

    def make(*, ranks_per_node=None, **changes):
        return setup_of(plan(**changes), ranks_per_node=ranks_per_node)

    return make


def test_strategy_and_batch_are_those_of_the_plan(setup):
    made = setup(
        zero={"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
        training={"precision": "bf16", "activation_checkpointing": True},
    )
    assert (made.engine, made.stage, made.precision) == ("deepspeed", 3, "bf16")
    assert (made.offload_optimizer, made.offload_params) == ("cpu", "cpu")
    assert made.activation_checkpointing
    # 16 = 4 micro x 2 accumulation x 2 workers.
    assert (made.micro_batch_size, made.accumulation_steps, made.n_ranks) == (4, 2, 2)
    assert (made.device, made.weight_bytes) == ("cpu", 2)


@pytest.mark.parametrize(("asked", "per_node"), [(None, 16), (8, 8), (16, 16), (64, 16)], ids=str)
def test_all_ranks_share_a_node_unless_fewer_are_said_to(setup, asked, per_node):
    changes = {"resources": {"workers": 16}, "training": {"global_batch_size": 64}}
    assert setup(machine=GPUS, ranks_per_node=asked, **changes).ranks_per_node == per_node


def test_the_sizes_of_buffers_are_those_that_deepspeed_gets(plan):
    made = plan(zero={"stage": 3})
    zero = made.deepspeed["zero_optimization"]
    setup = setup_of(made)
    assert setup.reduce_bucket_elements == zero["reduce_bucket_size"]
    assert setup.prefetch_bucket_elements == zero["stage3_prefetch_bucket_size"]
    assert setup.persistence_threshold_elements == zero["stage3_param_persistence_threshold"]
    assert setup.max_live_elements == zero["stage3_max_live_parameters"]
    assert setup.max_reuse_distance_elements == zero["stage3_max_reuse_distance"]
    # Far smaller than DeepSpeed's own, for the model is.
    assert setup.reduce_bucket_elements == 65_536


def test_what_the_user_s_section_sets_counts(setup):
    section = {
        "communication_data_type": "fp32",
        "zero_optimization": {
            "reduce_bucket_size": 1234,
            "sub_group_size": 5678,
            "overlap_comm": False,
            "stage3_prefetch_bucket_size": 0,
        },
    }
    made = setup(zero={"stage": 3}, training={"precision": "bf16"}, deepspeed=section)
    assert made.reduce_bucket_elements == 1234
    assert made.sub_group_elements == 5678
    assert not made.overlap_comm
    # 0 is a size, and not a default.
    assert made.prefetch_bucket_elements == 0
    assert made.communication_dtype == "fp32"


def test_a_size_that_the_plan_leaves_out_is_deepspeed_s_default(setup):
    # deepspeed 0.19.8, runtime/zero/config.py and offload_config.py.
    made = setup(zero={"stage": 0})
    assert made.reduce_bucket_elements == 500_000_000
    assert made.prefetch_bucket_elements == 50_000_000
    assert made.persistence_threshold_elements == 100_000
    assert made.max_live_elements == made.max_reuse_distance_elements == 1_000_000_000
    assert made.sub_group_elements == 1_000_000_000
    assert made.multi_rank_bucket_allreduce
    assert (made.swap_buffer_count, made.param_buffer_count) == (4, 5)
    assert made.param_buffer_elements == 100_000_000


@pytest.mark.parametrize(("stage", "overlaps"), [(0, False), (1, False), (2, False), (3, True)])
def test_only_stage_3_sends_beside_computing_unless_told_to(setup, stage, overlaps):
    assert setup(zero={"stage": stage}).overlap_comm is overlaps


def test_stage_2_overlaps_when_told_to(setup):
    section = {"zero_optimization": {"overlap_comm": True}}
    assert setup(zero={"stage": 2}, deepspeed=section).overlap_comm


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_added_up_and_sent_as_precise_as_the_weights(setup, precision):
    made = setup(zero={"stage": 1}, training={"precision": precision})
    assert (made.grad_accum_dtype, made.communication_dtype) == (precision, precision)
    assert made.state_dtype == "fp32"


@pytest.mark.parametrize("name", ["fp32", "float32", "torch.float32"])
def test_every_name_of_a_precision_means_it(setup, name):
    section = {"data_types": {"grad_accum_dtype": name}}
    made = setup(zero={"stage": 1}, training={"precision": "bf16"}, deepspeed=section)
    assert made.grad_accum_dtype == "fp32"


def test_optimizer_state_in_bf16_is_seen(setup):
    section = {"bf16": {"bf16_master_weights_and_grads": True, "bf16_optimizer_states": True}}
    made = setup(zero={"stage": 2}, training={"precision": "bf16"}, deepspeed=section)
    assert made.state_dtype == "bf16"


@pytest.mark.parametrize(
    ("optimizer", "zero", "name", "n_moments"),
    [
        ({"name": "adamw"}, {"stage": 0}, "adamw", 2),
        ({"name": "adam"}, {"stage": 0}, "adam", 2),
        ({"name": "sgd"}, {"stage": 0}, "sgd", 0),
        ({"name": "sgd", "momentum": 0.9}, {"stage": 0}, "momentum", 1),
        ({"name": "rmsprop"}, {"stage": 0}, "rmsprop", 1),
        ({"name": "rmsprop", "momentum": 0.9}, {"stage": 0}, "rmsprop", 2),
        # Of a rank's flat share, ZeRO lets it keep one second moment a weight.
        ({"name": "adafactor"}, {"stage": 1}, "adafactor", 1),
        # DeepSpeedCPULion makes a second one that it never uses.
        ({"name": "lion"}, OFFLOAD, "lion", 2),
    ],
    ids=str,
)
def test_moments_are_those_that_the_rule_keeps(setup, optimizer, zero, name, n_moments):
    made = setup(training={"optimizer": optimizer}, zero=zero)
    assert (made.optimizer, made.n_moments) == (name, n_moments)


def test_lion_on_a_gpu_keeps_one_moment(setup):
    made = setup(machine=GPUS, training={"optimizer": {"name": "lion"}})
    assert (made.n_moments, made.fused_optimizer) == (1, True)


def test_a_momentum_that_only_another_variant_uses_makes_no_moment(setup):
    compare = {"axes": {"training.optimizer.name": ["sgd", "adamw"]}}
    adamw = {"name": "adamw", "momentum": 0.9}
    assert setup(training={"optimizer": adamw}, compare=compare).n_moments == 2


@pytest.mark.parametrize(
    ("changes", "fused"),
    [
        ({}, False),
        ({"zero": OFFLOAD}, True),
        # Without a compiler torch's Adam updates on the host.
        ({"zero": OFFLOAD, "cpu_adam": False}, False),
        ({"zero": OFFLOAD, "training": {"optimizer": {"name": "sgd"}}}, False),
        ({"zero": OFFLOAD, "training": {"optimizer": {"name": "lion"}}}, True),
        # On a GPU it is torch's own Adam too, unless it is offloaded.
        ({"machine": GPUS}, False),
        ({"machine": GPUS, "zero": OFFLOAD}, True),
        ({"machine": GPUS, "training": {"engine": "torch"}}, False),
    ],
    ids=str,
)
def test_only_deepspeed_s_own_kernel_updates_without_temporaries(setup, changes, fused):
    assert setup(**changes).fused_optimizer is fused


@pytest.mark.parametrize(
    ("changes", "pinned"),
    [
        ({"machine": GPUS}, False),
        ({"machine": GPUS, "zero": OFFLOAD}, True),
        ({"machine": GPUS, "zero": {"stage": 3, "offload_params": "cpu"}}, True),
        # A CPU copies from pinned memory no faster.
        ({"zero": OFFLOAD}, False),
    ],
    ids=str,
)
def test_offloaded_memory_is_pinned_only_beside_a_gpu(setup, changes, pinned):
    assert setup(**changes).pinned is pinned


def test_pinning_that_the_user_switches_off_is_off(setup):
    section = {"zero_optimization": {"offload_optimizer": {"pin_memory": False}}}
    assert not setup(machine=GPUS, zero=OFFLOAD, deepspeed=section).pinned


def test_nvme_passes_through_buffers_as_large_as_the_plan_says(setup, tmp_path):
    zero = {
        "stage": 3,
        "offload_optimizer": "nvme",
        "offload_params": "nvme",
        "nvme_path": str(tmp_path),
    }
    section = {
        "zero_optimization": {
            "offload_optimizer": {"buffer_count": 6},
            "offload_param": {"buffer_count": 7, "buffer_size": 99_999},
        }
    }
    made = setup(zero=zero, deepspeed=section)
    assert (made.swap_buffer_count, made.param_buffer_count) == (6, 7)
    assert made.param_buffer_elements == 99_999


@pytest.mark.parametrize(("clipping", "clips"), [(None, False), (1.0, True)])
def test_gradients_are_clipped_when_the_job_says_so(setup, clipping, clips):
    assert setup(training={"gradient_clipping": clipping}).gradient_clipping is clips


def test_the_plain_engine_is_seen_without_a_deepspeed_section(setup):
    made = setup(training={"engine": "torch"})
    assert (made.engine, made.stage, made.precision) == ("torch", 0, "fp32")
    assert (made.n_moments, made.grad_accum_dtype) == (2, "fp32")
    assert not made.overlap_comm
