"""Our table of settings against the installed DeepSpeed and torch, whose import takes seconds."""

import importlib
import inspect
from typing import Any, get_args, get_origin

import pytest

from orchestrator.plan.deepspeed_keys import OWNED, REJECTED
from orchestrator.plan.deepspeed_settings import (
    ANY_STAGE,
    DTYPES,
    OPTIMIZER_SETTINGS,
    SETTINGS,
)

KNOWN = {*SETTINGS, *OWNED, *REJECTED}
MODELS = {
    "zero_optimization": "runtime.zero.config:DeepSpeedZeroConfig",
    "zero_optimization.offload_optimizer": (
        "runtime.zero.offload_config:DeepSpeedZeroOffloadOptimizerConfig"
    ),
    "zero_optimization.offload_param": (
        "runtime.zero.offload_config:DeepSpeedZeroOffloadParamConfig"
    ),
    "zero_optimization.leaf_module": (
        "runtime.zero.leaf_module_config:DeepSpeedZeroLeafModuleConfig"
    ),
    "zero_optimization.zenflow": "runtime.zenflow.zenflow_config:ZenFlowConfig",
    "fp16": "runtime.precision_config:DeepSpeedFP16Config",
    "bf16": "runtime.precision_config:DeepSpeedBF16Config",
    "comms_logger": "comm.config:CommsLoggerConfig",
    "timers.throughput": "utils.config:DeepSpeedThroughputTimerConfig",
    "tensorboard": "monitor.config:TensorBoardConfig",
    "csv_monitor": "monitor.config:CSVConfig",
    "wandb": "monitor.config:WandbConfig",
    "comet": "monitor.config:CometConfig",
}
TYPES = [
    *((block, key) for key in SETTINGS for block in [key.rpartition(".")[0]] if block in MODELS)
]


class ReadKeys(dict[str, object]):
    """A dict that remembers which keys were asked for."""

    def __init__(self, values):
        super().__init__(values)
        self.asked = set()

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __copy__(self):
        return self

    def keys(self):
        return self


def model(block):
    """The pydantic model DeepSpeed reads a block with."""
    module, _, name = MODELS[block].partition(":")
    return getattr(importlib.import_module(f"deepspeed.{module}"), name)


def fields_of(cls):
    return {field.alias or name: field for name, field in cls.model_fields.items()}


def below(block):
    """Names that stand directly in a block, blocks in it included."""
    prefix = f"{block}."
    return {key.removeprefix(prefix).split(".")[0] for key in KNOWN if key.startswith(prefix)}


def plain_type(annotation):
    members = [one for one in get_args(annotation) or (annotation,) if one is not type(None)]
    if get_origin(annotation) is list or annotation is list:
        return list
    # "auto" or a number
    return int if set(members) == {str, int} else members[0]


def test_every_setting_acts_at_some_stage_or_says_none():
    assert all(set(setting.stages) <= set(ANY_STAGE) for setting in SETTINGS.values())
    assert all("stage3_" not in key or s.stages in ((3,), ()) for key, s in SETTINGS.items())


@pytest.mark.ray
def test_the_top_level_keys_are_those_deepspeed_reads(installed):
    values = ReadKeys({"train_batch_size": 1})
    installed.DeepSpeedConfig(values)
    # It looks for these only with a device mesh, and in the optimizer's parameters.
    asked = values.asked | set(installed._REMOVED_TOP_LEVEL_CONFIG_KEYS)
    assert asked | {"sequence_parallel_size", "max_grad_norm"} == {
        key.split(".")[0] for key in KNOWN
    }


@pytest.mark.ray
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("block", MODELS)
def test_the_keys_of_a_block_are_those_of_deepspeed(block):
    blocks_removed = {"mics_shard_size", "mics_hierarchical_params_gather", "zeropp_loco_param"}
    assert below(block) - blocks_removed == fields_of(model(block)).keys()


@pytest.mark.ray
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("block", "key"), TYPES, ids=[key for _, key in TYPES])
def test_type_default_and_bounds_of_a_setting_are_those_of_deepspeed(block, key):
    field, ours = fields_of(model(block))[key.rpartition(".")[2]], SETTINGS[key]
    assert field.get_default(call_default_factory=True) == ours.default
    assert plain_type(field.annotation) is ours.type
    for bound in field.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if hasattr(bound, name):
                assert getattr(ours, name) == getattr(bound, name)


@pytest.mark.ray
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("key", "value"),
    [("loss_scale", -1), ("loss_scale_window", 0), ("min_loss_scale", 0)],
)
def test_deepspeed_refuses_what_lies_beyond_our_own_bounds_of_fp16(key, value):
    with pytest.raises(ValueError, match=key):
        model("fp16")(enabled=True, **{key: value})


@pytest.mark.ray
@pytest.mark.parametrize("block", ["flops_profiler", "aio", "torch_autocast", "data_types"])
def test_the_keys_of_a_block_without_a_model_are_those_deepspeed_reads(installed, block):
    values = ReadKeys({})
    installed.DeepSpeedConfig({"train_batch_size": 1, block: values})
    # It looks for these only if they are there.
    asked = values.asked | ({"dtype"} if block == "torch_autocast" else set())
    assert asked == below(block)


@pytest.mark.ray
def test_defaults_outside_the_models_are_those_of_deepspeed(installed):
    names = {key: f"{key.upper()}_DEFAULT" for key in SETTINGS if "." not in key}
    names |= {
        "optimizer.legacy_fusion": "LEGACY_FUSION_DEFAULT",
        "torch_autocast.enabled": "TORCH_AUTOCAST_ENABLED_DEFAULT",
        "data_types.grad_accum_dtype": "GRAD_ACCUM_DTYPE_DEFAULT",
        "data_types.param_dtype": "PARAM_DTYPE_DEFAULT",
        "data_types.buffer_dtype": "BUFFER_DTYPE_DEFAULT",
        "data_types.keep_in_fp32_modules": "KEEP_IN_FP32_MODULES_DEFAULT",
    }
    theirs = {key: getattr(installed, name) for key, name in names.items()}
    read = installed.DeepSpeedConfig({"train_batch_size": 1})
    theirs |= {f"aio.{key}": value for key, value in read.aio_config.items()}
    for key in ("detailed", "enabled", "module_depth", "output_file", "profile_step"):
        theirs[f"flops_profiler.{key}"] = getattr(read.flops_profiler_config, key)
    assert theirs == {key: SETTINGS[key].default for key in theirs}


@pytest.mark.ray
def test_the_choices_are_those_of_deepspeed(installed):
    from deepspeed.utils.logging import log_levels

    assert set(SETTINGS["log_level"].choices) == log_levels.keys()
    supported = installed.GRADIENT_ALLREDUCE_OP_SUPPORTED
    assert SETTINGS["gradient_allreduce_op"].choices == supported
    for precision, names in DTYPES.items():
        theirs = installed.DtypeEnum[precision]._all_values
        assert set(names) == {name for name in theirs if isinstance(name, str)}
    for name in SETTINGS["communication_data_type"].choices:
        installed.get_communication_data_type({"communication_data_type": name})


@pytest.mark.ray
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "path", "not_passed_on"),
    [
        ("torch_adam", "torch.optim:AdamW", {"torch_adam"}),
        ("torch_adam", "torch.optim:Adam", {"torch_adam"}),
        ("sgd", "torch.optim:SGD", set()),
        ("rmsprop", "torch.optim:RMSprop", set()),
        ("cpu_adam", "deepspeed.ops.adam:DeepSpeedCPUAdam", {"torch_adam"}),
        ("fused_adam", "deepspeed.ops.adam:FusedAdam", {"torch_adam"}),
        ("adafactor", "torch.optim:Adafactor", set()),
        ("cpu_lion", "deepspeed.ops.lion:DeepSpeedCPULion", set()),
        ("fused_lion", "deepspeed.ops.lion:FusedLion", set()),
    ],
)
def test_an_optimizer_takes_what_the_table_says(name, path, not_passed_on):
    module, _, cls = path.partition(":")
    parameters = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
    owned = {key.removeprefix("optimizer.params.") for key in OWNED}
    # set by DeepSpeed itself, or by torch's AdamW
    ours_to_set = {"params", "model_params", "adamw_mode", "decoupled_weight_decay"}
    wanted = parameters.keys() - owned - ours_to_set
    assert OPTIMIZER_SETTINGS[name].keys() - not_passed_on == wanted
    for key in wanted:
        assert parameters[key].default == OPTIMIZER_SETTINGS[name][key].default


@pytest.mark.ray
def test_deepspeed_reads_every_default_of_the_table_written_out(installed):
    """Those that are null included, but for values that only make sense together."""
    config: dict[str, Any] = {"train_batch_size": 1}
    for key, setting in SETTINGS.items():
        *parents, last = key.split(".")
        inner = config
        for part in parents:
            inner = inner.setdefault(part, {})
        if setting.type is not list or setting.default:
            inner[last] = setting.default
    del config["torch_autocast"]["dtype"]
    read = installed.DeepSpeedConfig(config)
    assert read.zero_config.reduce_bucket_size == 500_000_000
    assert read.keep_in_fp32_modules == "auto"
