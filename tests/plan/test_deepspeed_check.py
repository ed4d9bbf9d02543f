"""A wrong, unknown or idle setting under `deepspeed:` is found by `plan`, with a way out."""

import time

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.resources import Machine


@pytest.fixture
def problems(plan):
    """What is wrong with the section of a small job: key below `deepspeed` -> message."""

    def find(deepspeed, **changes):
        with pytest.raises(SpecError, match=r"job\.yaml:6:\d+: deepspeed\.") as error:
            plan(deepspeed=deepspeed, **changes)
        found = error.value.problems
        return {one.key.removeprefix("deepspeed."): one.message for one in found}

    return find


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("reduce_bucket_size", "big", "expected a whole number, got 'big' (text); write digits"),
        ("reduce_bucket_size", 1.5, "expected a whole number, got 1.5; write digits"),
        ("reduce_bucket_size", True, "expected a whole number, got true; write digits"),
        ("reduce_bucket_size", None, "expected a whole number, got nothing (null); write digits"),
        ("reduce_bucket_size", [1], "expected a whole number, got a list; write digits"),
        ("reduce_bucket_size", -5, "got -5; must be above 0"),
        ("reduce_bucket_size", 0, "got 0; must be above 0"),
        ("allgather_bucket_size", -1, "got -1; must be at least 0"),
        ("overlap_comm", "maybe", "expected true or false, got 'maybe' (text); write true or f"),
        ("overlap_comm", 1, "expected true or false, got 1; write true or false"),
        ("contiguous_gradients", None, "expected true or false, got nothing (null); write true"),
    ],
)
def test_a_zero_setting_of_a_wrong_type_or_size_is_refused(problems, key, value, message):
    found = problems({"zero_optimization": {key: value}}, zero={"stage": 2})
    assert list(found) == [f"zero_optimization.{key}"]
    assert found[f"zero_optimization.{key}"].startswith(message)


@pytest.mark.parametrize(
    ("deepspeed", "key", "message"),
    [
        ({"wall_clock_breakdown": "yes"}, "wall_clock_breakdown", "expected true or false, got 'y"),
        ({"steps_per_print": 0}, "steps_per_print", "got 0; must be above 0"),
        (
            {"log_level": "inof"},
            "log_level",
            "got 'inof'; did you mean 'info'? choose one of debug",
        ),
        (
            {"communication_data_type": "fp8"},
            "communication_data_type",
            "got 'fp8'; choose one of fp32, fp16, bf16",
        ),
        (
            {"flops_profiler": {"enabled": True, "top_modules": "three"}},
            "flops_profiler.top_modules",
            "expected a whole number, got 'three' (text)",
        ),
        (
            {"comms_logger": {"enabled": True, "prof_ops": [1]}},
            "comms_logger.prof_ops",
            "expected a list of texts, got a list; write it in brackets",
        ),
        ({"tensorboard": {"enabled": "true"}}, "tensorboard.enabled", "expected true or false"),
        ({"wandb": {"enabled": True, "project": 3}}, "wandb.project", "expected text, got 3; put"),
        (
            {"optimizer": {"params": {"amsgrad": "no"}}},
            "optimizer.params.amsgrad",
            "expected true or false, got 'no' (text)",
        ),
        (
            {"timers": {"throughput": {"synchronized": 2}}},
            "timers.throughput.synchronized",
            "expected true or false, got 2",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_a_setting_of_a_wrong_type_is_refused_in_any_block(problems, deepspeed, key, message):
    found = problems(deepspeed)
    assert list(found) == [key]
    assert found[key].startswith(message)


def test_whole_numbers_may_be_written_as_json_writes_large_ones(plan):
    made = plan(zero={"stage": 2}, deepspeed={"zero_optimization": {"reduce_bucket_size": 5e7}})
    size = made.deepspeed["zero_optimization"]["reduce_bucket_size"]
    assert size == 50_000_000
    assert isinstance(size, int)


@pytest.mark.parametrize(
    ("deepspeed", "key", "hint"),
    [
        ({"fp16": {"nonsense": 1}}, "fp16.nonsense", ""),
        ({"flops_profiler": {"nonsense": 2}}, "flops_profiler.nonsense", ""),
        ({"fp16": {"los_scale": 1}}, "fp16.los_scale", "did you mean 'loss_scale'? else "),
        ({"bf16": {"enable": "auto"}}, "bf16.enable", "did you mean 'enabled'? else "),
        ({"aio": {"blocksize": 1}}, "aio.blocksize", "did you mean 'block_size'? else "),
        ({"timers": {"throughputs": {}}}, "timers.throughputs", "did you mean 'throughput'? else "),
        ({"data_types": {"dtype": "bf16"}}, "data_types.dtype", "did you mean 'param_dtype'? else"),
        (
            {"zero_optimization": {"leaf_module": {"name": []}}},
            "zero_optimization.leaf_module.name",
            "did you mean 'names'? else ",
        ),
        ({"optimizer": {"typ": "AdamW"}}, "optimizer.typ", "did you mean 'type'? else "),
        ({"optimizer": {"params": {"nesterov": True}}}, "optimizer.params.nesterov", ""),
        (
            {"optimizer": {"params": {"forech": True}}},
            "optimizer.params.forech",
            "did you mean 'foreach'? else ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_key_that_no_block_of_deepspeed_has_is_refused(problems, deepspeed, key, hint):
    found = problems(deepspeed)
    assert list(found) == [key]
    assert found[key].startswith(f"DeepSpeed has no such key; {hint}")
    assert found[key].endswith("take it out")


def test_an_optimizer_is_given_only_what_it_takes(plan, problems):
    sgd = {"training": {"optimizer": {"name": "sgd"}}}
    nesterov = {"optimizer": {"params": {"nesterov": True}}}
    assert plan(deepspeed=nesterov, **sgd).deepspeed["optimizer"]["params"]["nesterov"] is True
    # DeepSpeed's own Adam, in which an offloaded optimizer is updated, has no `foreach`
    foreach = {"optimizer": {"params": {"foreach": True}}}
    plan(deepspeed=foreach, zero={"stage": 2})
    assert problems(foreach, zero={"stage": 2, "offload_optimizer": "cpu"}) == {
        "optimizer.params.foreach": "DeepSpeed has no such key; take it out"
    }


def test_lion_takes_other_settings_on_the_host_than_on_a_gpu(plan, problems):
    lion = {"training": {"optimizer": {"name": "lion"}}}
    offloaded = {**lion, "zero": {"stage": 2, "offload_optimizer": "cpu"}}
    on_gpu = {**lion, "machine": Machine(n_cpus=4, n_gpus=2, name="this machine")}
    host = {"optimizer": {"params": {"fp32_optimizer_states": False}}}
    gpu = {"optimizer": {"params": {"set_grad_none": False}}}
    for mine, changes, other in ((host, offloaded, gpu), (gpu, on_gpu, host)):
        config = plan(deepspeed=mine, **changes).deepspeed
        assert mine["optimizer"]["params"].items() <= config["optimizer"]["params"].items()
        (message,) = problems(other, **changes).values()
        assert message == "DeepSpeed has no such key; take it out"


@pytest.mark.parametrize("value", [{}, {"tag_validation": "Ignore"}, {"load_universal": True}])
def test_deepspeeds_checkpoints_are_said_not_to_be_used(problems, value):
    message = problems({"checkpoint": value})["checkpoint"]
    assert message.startswith("no checkpoint is written by DeepSpeed here; see checkpoint: of")


@pytest.mark.parametrize(
    ("training", "deepspeed", "key", "needed"),
    [
        ({}, {"fp16": {"loss_scale": 128}}, "fp16.loss_scale", "fp16"),
        ({"precision": "bf16"}, {"fp16": {"hysteresis": 4}}, "fp16.hysteresis", "fp16"),
        (
            {"precision": "fp16"},
            {"bf16": {"check_grad_overflow": False}},
            "bf16.check_grad_overflow",
            "bf16",
        ),
    ],
)
def test_settings_of_a_precision_that_is_not_used_are_refused(
    problems, training, deepspeed, key, needed
):
    gpus = Machine(n_cpus=4, n_gpus=2, name="this machine")
    used = training.get("precision", "fp32")
    assert problems(deepspeed, training=training, machine=gpus) == {
        key: f"has no effect while training.precision is {used}; "
        f"set training.precision: {needed}, or take it out"
    }


def test_settings_of_the_precision_in_use_are_passed_on(plan):
    gpus = Machine(n_cpus=4, n_gpus=2, name="this machine")
    fp16 = {"fp16": {"loss_scale": 128}}
    made = plan(deepspeed=fp16, training={"precision": "fp16"}, machine=gpus)
    assert made.deepspeed["fp16"] == {"enabled": True, "loss_scale": 128}


@pytest.mark.parametrize(
    ("key", "value", "stage", "stages"),
    [
        *(("stage3_prefetch_bucket_size", 1000, stage, "3") for stage in (0, 1, 2)),
        ("sub_group_size", 1000, 2, "3"),
        ("zero_hpz_partition_size", 2, 2, "3"),
        ("zero_quantized_weights", True, 1, "3"),
        ("round_robin_gradients", True, 3, "1 or 2"),
        ("allgather_bucket_size", 1000, 3, "1 or 2"),
        ("reduce_bucket_size", 1000, 0, "1 or 2 or 3"),
        ("overlap_comm", True, 0, "1 or 2 or 3"),
    ],
)
def test_settings_of_another_stage_are_refused(problems, key, value, stage, stages):
    found = problems({"zero_optimization": {key: value}}, zero={"stage": stage})
    message = f"has no effect while zero.stage is {stage}; set zero.stage: {stages}, or take it out"
    assert found == {f"zero_optimization.{key}": message}


@pytest.mark.parametrize(
    "key",
    [
        "stage3_gather_16bit_weights_on_model_save",
        "elastic_checkpoint",
        "pipeline_loading_checkpoint",
    ],
)
def test_settings_of_saving_a_model_are_refused_at_every_stage(problems, plan, key):
    message = "it would do nothing here; take it out"
    for stage in (0, 3):
        found = problems({"zero_optimization": {key: True}}, zero={"stage": stage})
        assert found == {f"zero_optimization.{key}": message}
        plan(deepspeed={"zero_optimization": {key: False}}, zero={"stage": stage})


@pytest.mark.parametrize(
    ("deepspeed", "key", "words"),
    [
        (
            {"flops_profiler": {"module_depth": 3}},
            "flops_profiler.module_depth",
            "while deepspeed.flops_profiler.enabled is false; set deepspeed.flops_profiler",
        ),
        (
            {"tensorboard": {"enabled": "auto", "job_name": "x"}},
            "tensorboard.job_name",
            "while deepspeed.tensorboard.enabled is false",
        ),
        ({"aio": {"block_size": 4096}}, "aio.block_size", "while nothing is offloaded to nvme"),
    ],
    ids=["profiler", "tensorboard", "aio"],
)
def test_settings_of_what_is_not_switched_on_are_refused(problems, deepspeed, key, words):
    found = problems(deepspeed)
    assert list(found) == [key]
    assert found[key].startswith(f"has no effect {words}")


def test_settings_of_what_is_switched_off_by_name_may_stay(plan):
    given = {"flops_profiler": {"enabled": False, "module_depth": 3}}
    assert plan(deepspeed=given).deepspeed["flops_profiler"] == given["flops_profiler"]


@pytest.mark.parametrize(
    ("block", "owner", "settings"),
    [
        ("offload_param", "zero.offload_params", {"pin_memory": False}),
        ("offload_optimizer", "zero.offload_optimizer", {"pin_memory": False, "device": "auto"}),
        ("offload_optimizer", "zero.offload_optimizer", {"ratio": 0.5}),
    ],
)
def test_offload_settings_without_offload_are_refused(problems, block, owner, settings):
    found = problems({"zero_optimization": {block: settings}}, zero={"stage": 3})
    message = f"has no effect while {owner} is none; set {owner}: cpu or nvme, or take it out"
    assert found == {f"zero_optimization.{block}.{next(iter(settings))}": message}


def test_what_deepspeed_does_anyway_is_never_without_effect(plan):
    given = {
        "zero_optimization": {"sub_group_size": 1e9, "overlap_comm": False},
        "fp16": {"loss_scale": 0, "initial_scale_power": 16},
        "flops_profiler": {"detailed": True},
    }
    assert plan(deepspeed=given).deepspeed["fp16"] == given["fp16"]


def test_everything_wrong_is_told_at_once_in_the_order_of_the_section(problems):
    given = {
        "wall_clock_breakdown": "yes",
        "zero_optimization": {"overlap_com": True, "reduce_bucket_size": -1},
        "qqqq": 1,
        "fp16": {"loss_scale": 128},
        "gradient_clipping": 1.0,
    }
    assert list(problems(given, zero={"stage": 2})) == [
        "wall_clock_breakdown",
        "zero_optimization.overlap_com",
        "zero_optimization.reduce_bucket_size",
        "qqqq",
        "fp16.loss_scale",
        "gradient_clipping",
    ]


def test_a_section_costs_the_plan_no_time(plan):
    given = {"zero_optimization": {"overlap_comm": True}, "wall_clock_breakdown": False}
    plan(zero={"stage": 2})
    started = time.process_time()
    plan(zero={"stage": 2}, deepspeed=given)
    assert time.process_time() - started < 0.5
