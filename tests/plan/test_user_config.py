"""What a user may write under `deepspeed:`, and what becomes of it."""

import json
from typing import Any

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.deepspeed_keys import OWNED, REJECTED
from orchestrator.plan.launch_plan import make_plan
from orchestrator.plan.resources import Machine
from orchestrator.spec.load import load_job

OFFLOADED = {
    "stage": 3,
    "offload_optimizer": "nvme",
    "offload_params": "nvme",
    "nvme_path": "/nvme",
}


def nested(dotted, value):
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value


def auto_left(value):
    if isinstance(value, dict):
        return any(map(auto_left, value.values()))
    return any(map(auto_left, value)) if isinstance(value, list) else value == "auto"


def problems(plan, **changes):
    with pytest.raises(SpecError, match=r"job\.yaml:\d+:\d+: deepspeed") as error:
        plan(**changes)
    return {problem.key: problem.message for problem in error.value.problems}


@pytest.mark.parametrize("key", OWNED)
@pytest.mark.parametrize("value", [1, 0, None, True, "text", [1], {"a": 1}], ids=repr)
def test_a_key_the_job_file_owns_is_refused_and_the_owner_named(plan, key, value):
    found = problems(plan, zero=OFFLOADED, deepspeed=nested(key, value))
    (where,) = found
    inside = isinstance(value, dict) and key == "scheduler"
    assert where == f"deepspeed.{key}" + (".a" if inside else "")
    assert found[where].startswith(f"is set by {OWNED[key]}")
    assert found[where].endswith('take it out here (or write "auto")')


@pytest.mark.parametrize("key", OWNED)
@pytest.mark.parametrize("zero", [{"stage": 0}, OFFLOADED], ids=["stage 0", "offloaded"])
def test_a_key_the_job_file_owns_may_be_auto(plan, key, zero):
    plain = plan(zero=zero).deepspeed
    config = plan(zero=zero, deepspeed=nested(key, "auto")).deepspeed
    assert not auto_left(config)
    if key.endswith(".enabled"):
        assert config == {**plain, key.removesuffix(".enabled"): {"enabled": False}}
    elif "offload" in key and zero["stage"] == 0:
        block = key.split(".")[1]
        assert config["zero_optimization"].pop(block) is None
        assert config == plain
    else:
        assert config == plain


JOB = """\
name: bare
model: {family: mlp}
data: {source: digits, image_size: 8}
training: {steps: 4, global_batch_size: 16, optimizer: {lr: 0.1}}
deepspeed: {zero_optimization: {stage: 3}, optimizer: {params: {lr: 0.2, eps: 1e-6}}}
"""


def test_a_conflict_says_what_the_job_file_says_now_and_whether_it_was_written(tmp_path):
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    job = load_job(tmp_path / "job.yaml")
    with pytest.raises(SpecError, match=r"job\.yaml:5:33: deepspeed\.zero_op") as error:
        make_plan(job, machine=Machine(n_cpus=2, n_gpus=0, name="this machine"))
    assert [problem.message for problem in error.value.problems] == [
        "is set by zero.stage (0, the default); set zero.stage: 3 and take it out here "
        '(or write "auto")',
        "is set by training.optimizer.lr (0.1); set training.optimizer.lr: 0.2 and take it out "
        'here (or write "auto")',
        "is set by training.optimizer.eps (1e-08, the default); set training.optimizer.eps: 1e-06 "
        'and take it out here (or write "auto")',
    ]


@pytest.mark.parametrize(
    ("deepspeed", "message"),
    [
        ({"bf16": {"enabled": True}}, "(fp32, the default); set training.precision: bf16 and"),
        ({"bf16": {"enabled": False}}, "(fp32, the default); set training.precision and"),
        ({"gradient_clipping": 1.0}, "(left out); set training.gradient_clipping: 1.0 and"),
        ({"optimizer": {"type": "SGD"}}, "(adamw, the default); set training.optimizer.name: sgd"),
        ({"optimizer": {"type": "Lion"}}, "set training.optimizer.name: lion and take it out"),
        ({"optimizer": {"type": "Adafactor"}}, "set training.optimizer.name: adafactor and take"),
        ({"optimizer": {"type": "AdamW"}}, "training.optimizer.name (adamw, the default); take it"),
        # "Adam" is AdamW to DeepSpeed, unless adam_w_mode says otherwise
        ({"optimizer": {"type": "Adam"}}, "set training.optimizer.name and take it out"),
        ({"optimizer": {"params": {"adam_w_mode": False}}}, "training.optimizer.name: adam and"),
        ({"scheduler": {"type": "WarmupLR"}}, "training.schedule (its default); set training.sch"),
        ({"train_batch_size": 16}, "is set by training.global_batch_size (16); take it out here"),
        ({"zero_optimization": {"stage": 2}}, "is set by zero.stage (0); set zero.stage: 2 and"),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}},
            "(none, the default); set zero.offload_optimizer: cpu and take it out",
        ),
    ],
    ids=repr,
)
def test_a_conflict_says_how_the_job_file_says_the_other_thing(plan, deepspeed, message):
    ((_, found),) = problems(plan, deepspeed=deepspeed).items()
    assert message in found


def test_a_key_that_stands_in_a_longer_name_is_no_conflict(plan):
    found = problems(plan, deepspeed={"zero_optimization.stage": 3})
    message = "DeepSpeed has no such key; take it out"
    assert found == {'deepspeed."zero_optimization.stage"': message}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_auto_precision_becomes_that_of_the_job(plan, precision):
    config = plan(
        machine=Machine(n_cpus=2, n_gpus=2, name="this machine"),
        training={"precision": precision},
        deepspeed={"fp16": {"enabled": "auto", "loss_scale": 0}, "bf16": {"enabled": "auto"}},
    ).deepspeed
    assert config["fp16"] == {"enabled": precision == "fp16", "loss_scale": 0}
    assert config["bf16"] == {"enabled": precision == "bf16"}


# What deepspeed 0.19.8 takes for a key that is left out: runtime/zero/config.py.
DEFAULTS = {
    "allgather_bucket_size": 5e8,
    "reduce_bucket_size": 5e8,
    "stage3_prefetch_bucket_size": 5e7,
    "stage3_param_persistence_threshold": 1e5,
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": False,
}
# As transformers' documentation gives it for ZeRO-3, but for values that would take a side.
HUGGING_FACE: dict[str, Any] = {
    "fp16": {
        "enabled": "auto",
        "loss_scale": 0,
        "loss_scale_window": 1000,
        "initial_scale_power": 16,
        "hysteresis": 2,
        "min_loss_scale": 1,
    },
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "auto",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "scheduler": {
        "type": "auto",
        "params": {
            "warmup_min_lr": "auto",
            "warmup_max_lr": "auto",
            "warmup_num_steps": "auto",
            "total_num_steps": "auto",
        },
    },
    "zero_optimization": {
        "stage": "auto",
        "offload_optimizer": {"device": "auto", "pin_memory": "auto"},
        "offload_param": {"device": "auto", "pin_memory": "auto"},
        "overlap_comm": False,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "allgather_bucket_size": "auto",
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": "auto",
        "stage3_max_reuse_distance": "auto",
        "stage3_gather_16bit_weights_on_model_save": "auto",
    },
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}


@pytest.mark.parametrize(
    "zero",
    [
        *({"stage": stage} for stage in (0, 1, 2, 3)),
        *({"stage": stage, "offload_optimizer": "cpu"} for stage in (1, 2, 3)),
        {"stage": 3, "offload_params": "cpu"},
        OFFLOADED,
    ],
    ids=repr,
)
def test_a_hugging_face_configuration_can_be_pasted(plan, zero):
    plain = plan(zero=zero).deepspeed
    config = plan(zero=zero, deepspeed=HUGGING_FACE).deepspeed
    assert not auto_left(config)
    assert config.pop("fp16") == {**HUGGING_FACE["fp16"], "enabled": False}
    assert config.pop("bf16") == {"enabled": False}
    assert config.pop("wall_clock_breakdown") is False
    written = {"overlap_comm": False, "contiguous_gradients": True, "sub_group_size": 1e9}
    off = dict.fromkeys(("offload_optimizer", "offload_param"))
    # a value of ours stands before DeepSpeed's default
    inner = {**off, **DEFAULTS, **written, **plain.pop("zero_optimization")}
    assert config.pop("zero_optimization") == inner
    assert config == plain


def test_a_configuration_may_lie_in_a_file_beside_the_job(plan, tmp_path):
    text = json.dumps(HUGGING_FACE)
    (tmp_path / "ds_config.json").write_text(text, encoding="utf-8")
    pasted = plan(zero={"stage": 3}, deepspeed=HUGGING_FACE).deepspeed
    assert plan(zero={"stage": 3}, deepspeed="ds_config.json").deepspeed == pasted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .*ds\.json: No such file or directory; give a JSON file relative"),
        (b"{", r"ds\.json is not JSON: Expecting property name"),
        (b"\xff\xfe", r"ds\.json is not JSON: 'utf-8' codec"),
        (b"[1]", r"ds\.json holds no JSON object"),
    ],
    ids=["missing", "broken", "binary", "a list"],
)
def test_a_file_that_is_no_configuration_is_refused(plan, tmp_path, content, message):
    if content is not None:
        (tmp_path / "ds.json").write_bytes(content)
    with pytest.raises(SpecError, match=r"job\.yaml:6:1: deepspeed: .*" + message):
        plan(deepspeed="ds.json")


def test_the_choices_in_a_configuration_are_named_all_at_once(plan):
    # The first lines of most files found in the wild.
    pasted = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 3e-4}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 10}},
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
        "gradient_clipping": 1.0,
    }
    found = problems(plan, zero={"stage": 3, "offload_optimizer": "cpu"}, deepspeed=pasted)
    assert list(found) == [
        "deepspeed.bf16.enabled",
        "deepspeed.optimizer.type",
        "deepspeed.optimizer.params.lr",
        "deepspeed.scheduler.type",
        "deepspeed.scheduler.params.warmup_num_steps",
        "deepspeed.zero_optimization.stage",
        "deepspeed.zero_optimization.offload_optimizer.device",
        "deepspeed.gradient_clipping",
    ]


def test_what_nobody_owns_is_passed_on_as_it_stands(plan):
    given = {
        "zero_optimization": {"reduce_bucket_size": 1234, "overlap_comm": True, "zenflow": {}},
        "optimizer": {"params": {"foreach": True}},
        "communication_data_type": "fp32",
        "comms_logger": {"enabled": True, "prof_ops": ["all_reduce"]},
    }
    plain = plan(zero={"stage": 2}).deepspeed
    config = plan(zero={"stage": 2}, deepspeed=given).deepspeed
    assert config.pop("communication_data_type") == "fp32"
    assert config.pop("comms_logger") == {"enabled": True, "prof_ops": ["all_reduce"]}
    assert config["optimizer"]["params"].pop("foreach") is True
    assert config["zero_optimization"].pop("overlap_comm") is True
    # being there switches it on
    assert config["zero_optimization"].pop("zenflow") == {}
    plain["zero_optimization"]["reduce_bucket_size"] = 1234
    assert config == plain


@pytest.mark.parametrize("key", REJECTED)
@pytest.mark.parametrize("value", [True, "auto", {"enabled": True}], ids=repr)
def test_a_key_that_would_do_nothing_is_refused_with_a_way_out(plan, key, value):
    found = problems(plan, deepspeed=nested(key, value))
    assert list(found) == [f"deepspeed.{key}"]
    what_is_wrong, _, what_to_do = found[f"deepspeed.{key}"].partition("; ")
    assert what_is_wrong
    assert what_to_do


@pytest.mark.parametrize(
    ("deepspeed", "key", "message"),
    [
        ({"zero_optimisation": {"stage": 3}}, "zero_optimisation", "'zero_optimization'"),
        ({"gradient_clippin": 1}, "gradient_clippin", "'gradient_clipping'"),
        ({"comm_logger": {}}, "comm_logger", "'comms_logger'"),
        ({"FP16": {"enabled": True}}, "FP16", "'fp16'"),
    ],
)
def test_a_misspelt_key_is_not_ignored(plan, deepspeed, key, message):
    found = problems(plan, deepspeed=deepspeed)
    assert found == {
        f"deepspeed.{key}": f"DeepSpeed has no such key; did you mean {message}? else take it out"
    }


def test_a_key_nothing_resembles_gets_no_hint(plan):
    found = problems(plan, deepspeed={"qqqq": 1})
    assert found == {"deepspeed.qqqq": "DeepSpeed has no such key; take it out"}


def test_a_hint_never_leads_to_a_key_that_is_refused_too(plan):
    found = problems(plan, deepspeed={"autotunning": {}})
    assert "did you mean" not in found["deepspeed.autotunning"]


@pytest.mark.parametrize(
    ("zero", "key", "hint"),
    [
        ({"overlap_com": True}, "overlap_com", "'overlap_comm'"),
        (
            {"stage3_max_live_parameter": 1},
            "stage3_max_live_parameter",
            "'stage3_max_live_parameters'",
        ),
        ({"offload_params": {}}, "offload_params", "'offload_param'"),
        (
            {"offload_optimizer": {"pin_memry": True}},
            "offload_optimizer.pin_memry",
            "'pin_memory'",
        ),
    ],
)
def test_a_misspelt_zero_key_gets_a_hint(plan, zero, key, hint):
    strategy = {"stage": 3, "offload_optimizer": "cpu"}
    found = problems(plan, zero=strategy, deepspeed={"zero_optimization": zero})
    assert list(found) == [f"deepspeed.zero_optimization.{key}"]
    assert f"did you mean {hint}? " in found[f"deepspeed.zero_optimization.{key}"]


@pytest.mark.parametrize("block", ["optimizer", "optimizer.params", "zero_optimization"])
@pytest.mark.parametrize("value", [None, True, "AdamW", 3, []], ids=repr)
def test_a_plain_value_cannot_replace_a_whole_block(plan, block, value):
    found = problems(plan, deepspeed=nested(block, value))
    assert list(found) == [f"deepspeed.{block}"]
    assert found[f"deepspeed.{block}"].startswith("expected a mapping; ")


@pytest.mark.parametrize("block", ["fp16", "bf16"])
def test_precision_cannot_be_switched_on_by_a_plain_true(plan, block):
    found = problems(plan, deepspeed={block: True})
    assert found[f"deepspeed.{block}"].startswith("expected a mapping; ")


@pytest.mark.parametrize("value", [None, "cpu", []], ids=repr)
def test_a_plain_value_cannot_replace_an_offload_block_in_use(plan, value):
    for block in ("offload_optimizer", "offload_param"):
        zero = {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"}
        found = problems(plan, zero=zero, deepspeed={"zero_optimization": {block: value}})
        assert found[f"deepspeed.zero_optimization.{block}"].startswith("expected a mapping; ")


@pytest.mark.parametrize(
    ("deepspeed", "more"),
    [
        ({"zero_optimization": {}}, {}),
        ({"optimizer": {}}, {}),
        ({"optimizer": {"params": {}}}, {}),
        ({"fp16": {}}, {"fp16": {}}),
        ({"scheduler": {}}, {"scheduler": {}}),
        ({"bf16": None}, {}),
        ({"zero_optimization": {"offload_optimizer": {}}}, {}),
    ],
    ids=repr,
)
def test_an_empty_block_takes_nothing_away(plan, deepspeed, more):
    zero = {"stage": 3, "offload_optimizer": "cpu"}
    assert plan(zero=zero, deepspeed=deepspeed).deepspeed == plan(zero=zero).deepspeed | more


@pytest.mark.parametrize("block", [None, {}, {"device": "auto"}, {"pin_memory": True}], ids=repr)
def test_an_offload_block_that_is_off_is_shown_as_null(plan, block):
    config = plan(zero={"stage": 3}, deepspeed={"zero_optimization": {"offload_param": block}})
    assert config.deepspeed["zero_optimization"]["offload_param"] is None


def test_a_mapping_cannot_stand_where_one_value_does(plan):
    given = {"zero_optimization": {"reduce_bucket_size": {"a": 1}}, "steps_per_print": {"a": 1}}
    found = problems(plan, zero={"stage": 2}, deepspeed=given)
    assert set(found.values()) == {"expected one value, not a mapping; take it out"}
    assert set(found) == {
        "deepspeed.zero_optimization.reduce_bucket_size",
        "deepspeed.steps_per_print",
    }


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_auto_that_the_job_does_not_answer_becomes_deepspeeds_default(plan, stage):
    given = {
        "zero_optimization": {
            "allgather_bucket_size": "auto",
            "sub_group_size": "auto",
            "stage3_gather_16bit_weights_on_model_save": "auto",
            "leaf_module": {"names": "auto"},
        },
        "wall_clock_breakdown": "auto",
        "aio": {"block_size": "auto"},
    }
    config = plan(zero={"stage": stage}, deepspeed=given).deepspeed
    inner = config["zero_optimization"]
    # 85,002 parameters: at stages 1 and 2 the buckets are ours
    assert inner["allgather_bucket_size"] == (65_536 if stage in (1, 2) else 500_000_000)
    assert inner["sub_group_size"] == 1_000_000_000
    assert inner["stage3_gather_16bit_weights_on_model_save"] is False
    assert inner["leaf_module"] == {"names": []}
    assert config["wall_clock_breakdown"] is False
    assert config["aio"] == {"block_size": 1024 * 1024}


def test_a_problem_in_the_section_carries_its_line(plan):
    with pytest.raises(SpecError, match=r"job\.yaml:6:\d+: deepspeed\.qqqq: DeepSpeed has"):
        plan(deepspeed={"qqqq": 1})


def test_the_job_itself_is_not_changed_by_the_merge(plan):
    given = {"zero_optimization": {"reduce_bucket_size": "auto"}}
    made = plan(zero={"stage": 1}, deepspeed=given)
    assert made.spec.deepspeed == given
