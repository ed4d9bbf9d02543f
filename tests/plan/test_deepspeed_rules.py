"""Settings that are right alone and that DeepSpeed refuses together are found by `plan`."""

import json
import subprocess
import sys
from typing import Any

import pytest

from orchestrator.errors import SpecError

# Starts DeepSpeed with each configuration in a process of one rank; prints what it raised.
START = """
import json, os, sys, torch
os.environ.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="")
import deepspeed
# Else it compiles collectives of its own.
deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False, "shm_comm": False}
store = torch.distributed.HashStore()
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
raised = []
for config in json.load(sys.stdin):
    model = torch.nn.Linear(8, 8)
    try:
        deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    except Exception as err:
        raised.append(str(err))
    else:
        raised.append("")
print("RAISED" + json.dumps(raised))
"""
COMBINATIONS: list[tuple[int, dict[str, Any], str]] = [
    (0, {"prescale_gradients": True}, ""),
    (1, {"prescale_gradients": True}, ""),
    (2, {"prescale_gradients": True}, "pre-scale gradients is not yet supported with ZeRO-2"),
    (3, {"prescale_gradients": True}, "pre-scale gradients is not yet supported with ZeRO-3"),
    (1, {"gradient_predivide_factor": 2.0}, ""),
    (2, {"gradient_predivide_factor": 2.0}, "gradient_predivide_factor != 1.0 is not yet"),
    (1, {"allgather_bucket_size": 1001}, "allgather_bucket_size must be a multiple of"),
    (2, {"gradient_allreduce_op": "sum"}, ""),
    (3, {"gradient_allreduce_op": "sum"}, "gradient_allreduce_op='sum' is not supported with Z"),
    (2, {"compute_grad_norm": False}, ""),
    (
        2,
        {"compute_grad_norm": False, "gradient_clipping": 1.0},
        "compute_grad_norm=false requires gradient_clipping=0",
    ),
    (0, {"data_types": {"grad_accum_dtype": "bf16"}}, "unsupported mix of model_dtype"),
    (1, {"data_types": {"grad_accum_dtype": "bf16"}}, ""),
    (0, {"data_types": {"param_dtype": "bf16"}}, "conflicts with the enabled precision mode"),
    (
        2,
        {"bf16": {"enabled": True, "bf16_optimizer_states": True}},
        "bf16_optimizer_states requires bf16_master_weights_and_grads",
    ),
    # What stands for "off" and for "nothing to tell" in our dict.
    (2, {"offload_param": None}, ""),
    (0, {"scheduler": {}}, ""),
]
INSIDE_ZERO = {"allgather_bucket_size", "compute_grad_norm", "offload_param"}


@pytest.mark.ray
def test_deepspeed_refuses_what_the_rules_say_and_nothing_else():
    configs = []
    for stage, given, _ in COMBINATIONS:
        inner = {key: value for key, value in given.items() if key in INSIDE_ZERO}
        outer = {key: value for key, value in given.items() if key not in INSIDE_ZERO}
        optimizer = {"type": "AdamW", "params": {"lr": 0.001, "torch_adam": True}}
        zero = {"stage": stage, **inner}
        plain = {"train_batch_size": 1, "gradient_clipping": 0.0, "optimizer": optimizer}
        configs.append({**plain, "zero_optimization": zero, **outer})
    done = subprocess.run(
        [sys.executable, "-c", START],
        input=json.dumps(configs),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    _, _, raised = done.stdout.partition("RAISED")
    assert raised, done.stderr
    for (stage, given, words), message in zip(COMBINATIONS, json.loads(raised), strict=True):
        assert bool(message) == bool(words), f"{given} at stage {stage}: {message}"
        assert words in message


def messages(plan, deepspeed, **changes):
    with pytest.raises(SpecError, match=r"job\.yaml:6:\d+: deepspeed\.") as error:
        plan(deepspeed=deepspeed, **changes)
    found = error.value.problems
    return {one.key.removeprefix("deepspeed."): one.message for one in found}


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    "given", [{"prescale_gradients": True}, {"gradient_predivide_factor": 2.0}], ids=repr
)
def test_gradients_scaled_before_reduce_scatter_are_refused(plan, given, stage):
    (key,) = given
    message = f"DeepSpeed refuses it at stage {stage}; set reduce_scatter: false under"
    found = messages(plan, given, zero={"stage": stage})
    assert list(found) == [key]
    assert found[key].startswith(message)
    way_out = {**given, "zero_optimization": {"reduce_scatter": False}}
    assert plan(deepspeed=way_out, zero={"stage": stage}).deepspeed[key] == given[key]


@pytest.mark.parametrize("stage", [0, 1])
def test_gradients_may_be_scaled_first_where_they_are_all_reduced(plan, stage):
    made = plan(deepspeed={"prescale_gradients": True}, zero={"stage": stage})
    assert made.deepspeed["prescale_gradients"] is True


def test_gradients_cannot_be_summed_at_stage_3(plan):
    given = {"gradient_allreduce_op": "sum"}
    found = messages(plan, given, zero={"stage": 3})
    assert found == {"gradient_allreduce_op": "DeepSpeed refuses sum at stage 3; take it out"}
    plan(deepspeed=given, zero={"stage": 2})


@pytest.mark.parametrize(
    ("workers", "size", "fitting"),
    [(4, 3, "1 or 2 or 4"), (4, 8, "1 or 2 or 4"), (5, 2, "1 or 5")],
)
def test_a_secondary_group_must_divide_the_workers(plan, workers, size, fitting):
    changes = {"zero": {"stage": 3}, "resources": {"workers": workers}}
    changes["training"] = {"global_batch_size": 4 * workers, "micro_batch_size": 4}
    given = {"zero_optimization": {"zero_hpz_partition_size": size}}
    assert messages(plan, given, **changes) == {
        "zero_optimization.zero_hpz_partition_size": (
            f"{workers} workers do not divide into groups of {size}; write {fitting}"
        )
    }


def test_a_secondary_group_that_divides_the_workers_is_passed_on(plan):
    given = {"zero_optimization": {"zero_hpz_partition_size": 2}}
    made = plan(deepspeed=given, zero={"stage": 3}, resources={"workers": 4})
    assert made.deepspeed["zero_optimization"]["zero_hpz_partition_size"] == 2


@pytest.mark.parametrize("size", [0, 1, 1001])
def test_an_allgather_bucket_must_be_even(plan, size):
    given = {"zero_optimization": {"allgather_bucket_size": size}}
    message = f"got {size}; must be even and at least 2"
    found = messages(plan, given, zero={"stage": 1})
    assert found == {"zero_optimization.allgather_bucket_size": message}


def test_leaving_out_the_norm_does_not_go_with_clipping_or_offload(plan):
    given = {"zero_optimization": {"compute_grad_norm": False}}
    key = "zero_optimization.compute_grad_norm"
    plan(deepspeed=given, zero={"stage": 2})
    clipped = messages(plan, given, zero={"stage": 2}, training={"gradient_clipping": 1.0})
    assert clipped[key].startswith("clipping needs the norm; leave out training.gradient_clipping")
    offloaded = messages(plan, given, zero={"stage": 2, "offload_optimizer": "cpu"})
    assert offloaded[key] == "DeepSpeed refuses it with optimizer offload; take it out"


def test_types_must_be_those_of_the_precision(plan):
    given = {"data_types": {"param_dtype": "bf16", "grad_accum_dtype": "bfloat16"}}
    assert messages(plan, given) == {
        "data_types.param_dtype": "training.precision is fp32; take it out",
        "data_types.grad_accum_dtype": "DeepSpeed refuses all but fp32 at stage 0; take it out",
    }
    plan(deepspeed=given, training={"precision": "bf16"})
    plan(deepspeed={"data_types": {"grad_accum_dtype": "bf16"}}, zero={"stage": 1})


def test_optimizer_states_in_bf16_need_weights_in_bf16(plan):
    bf16 = {"zero": {"stage": 2}, "training": {"precision": "bf16"}}
    found = messages(plan, {"bf16": {"bf16_optimizer_states": True}}, **bf16)
    assert list(found) == ["bf16.bf16_optimizer_states"]
    both = {"bf16_optimizer_states": True, "bf16_master_weights_and_grads": True}
    plan(deepspeed={"bf16": both}, **bf16)
