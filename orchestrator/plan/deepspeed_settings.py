"""Every setting of DeepSpeed's that a job may pass on: what it takes, its default, where it acts.

A table, so that `plan` need not import DeepSpeed to find a wrong value. What the job file itself
says, and what is refused, is in `deepspeed_keys`.

Source: deepspeed 0.19.8, the models that `runtime/config.py` reads its blocks with, and
`runtime/constants.py`; torch 2.13.0, `torch.optim`; a test compares the table with the installed
versions. Stages: who reads a setting, as found in `runtime/engine.py` and `runtime/zero/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANY_STAGE = (0, 1, 2, 3)
_SHARDED = (1, 2, 3)
_LOWER = (1, 2)
_STAGE_3 = (3,)
_NO_STAGE = ()
"""Acts on checkpoints, on another optimizer, or is read by nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What one key takes."""

    type: type
    """`bool`, `int`, `float`, `str`, or `list` of texts."""
    default: Any
    """What DeepSpeed takes for a key that is left out; one that is `None` may be null."""
    choices: tuple[str, ...] = ()
    """All there are; empty: any."""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    stages: tuple[int, ...] = ANY_STAGE
    """ZeRO stages at which it does anything."""


def _switch(default: bool | None, **more: Any) -> Setting:
    return Setting(type=bool, default=default, **more)


def _whole(default: int | str | None, **more: Any) -> Setting:
    return Setting(type=int, default=default, **more)


def _number(default: float, **more: Any) -> Setting:
    return Setting(type=float, default=default, **more)


def _text(default: str | None, *choices: str) -> Setting:
    return Setting(type=str, default=default, choices=choices)


def _texts(default: Any, **more: Any) -> Setting:
    return Setting(type=list, default=default, **more)


DTYPES = {
    "fp32": ("fp32", "float32", "float", "torch.float32"),
    "bf16": ("bf16", "bfloat16", "torch.bfloat16"),
    "fp16": ("fp16", "float16", "half", "torch.float16"),
}
"""DeepSpeed's names of each precision."""
_ANY_DTYPE = tuple(name for names in DTYPES.values() for name in names)

_BLOCKS: dict[str, dict[str, Setting]] = {
    "": {
        "communication_data_type": _text(None, "fp32", "fp16", "bf16"),
        "disable_python_gc": _switch(False),
        "dump_state": _switch(False),
        "gradient_allreduce_op": _text("mean", "mean", "sum"),
        "gradient_predivide_factor": _number(1.0, gt=0),
        "log_level": _text(None, "debug", "info", "warning", "error", "critical"),
        "memory_breakdown": _switch(False),
        "prescale_gradients": _switch(False),
        "steps_per_print": _whole(None, gt=0),
        "wall_clock_breakdown": _switch(False),
        "zero_allow_untested_optimizer": _switch(False),
        "zero_force_ds_cpu_optimizer": _switch(True),
    },
    "zero_optimization": {
        "allgather_bucket_size": _whole(500_000_000, ge=0, stages=_LOWER),
        "allgather_partitions": _switch(True, stages=_NO_STAGE),
        "compute_grad_norm": _switch(True, stages=_LOWER),
        "contiguous_gradients": _switch(True, stages=_SHARDED),
        "elastic_checkpoint": _switch(False, stages=_NO_STAGE),
        "enable_sanity_checks": _switch(False, stages=_STAGE_3),
        "ignore_unused_parameters": _switch(True, stages=_LOWER),
        "load_from_fp32_weights": _switch(True, stages=_NO_STAGE),
        "log_trace_cache_warnings": _switch(False, stages=_STAGE_3),
        "memory_efficient_linear": _switch(True, stages=_STAGE_3),
        # Left out, DeepSpeed overlaps at stage 3 only.
        "overlap_comm": _switch(None, stages=_SHARDED),
        "override_module_apply": _switch(True, stages=_STAGE_3),
        "parameter_alignment": _switch(False, stages=_LOWER),
        "pipeline_loading_checkpoint": _switch(False, stages=_NO_STAGE),
        "reduce_bucket_size": _whole(500_000_000, gt=0, stages=_SHARDED),
        "reduce_scatter": _switch(True, stages=_SHARDED),
        "round_robin_gradients": _switch(False, stages=_LOWER),
        "save_muon_momentum_buffer_in_memory": _switch(False, stages=_NO_STAGE),
        "stage3_allgather_sequential": _switch(False, stages=_STAGE_3),
        "stage3_gather_16bit_weights_on_model_save": _switch(False, stages=_NO_STAGE),
        "stage3_max_live_parameters": _whole(1_000_000_000, ge=0, stages=_STAGE_3),
        "stage3_max_reuse_distance": _whole(1_000_000_000, ge=0, stages=_STAGE_3),
        "stage3_model_persistence_threshold": _whole(2**63 - 1, ge=0, stages=_STAGE_3),
        "stage3_module_granularity_threshold": _whole(0, stages=_STAGE_3),
        "stage3_param_persistence_threshold": _whole(100_000, ge=0, stages=_STAGE_3),
        "stage3_prefetch_bucket_size": _whole(50_000_000, ge=0, stages=_STAGE_3),
        "stage3_use_all_reduce_for_fetch_params": _switch(False, stages=_STAGE_3),
        "sub_group_size": _whole(1_000_000_000, ge=0, stages=_STAGE_3),
        "use_multi_rank_bucket_allreduce": _switch(True, stages=_LOWER),
        "zero_hpz_partition_size": _whole(1, ge=0, stages=_STAGE_3),
        "zero_quantized_gradients": _switch(False, stages=_STAGE_3),
        "zero_quantized_nontrainable_weights": _switch(False, stages=_STAGE_3),
        "zero_quantized_weights": _switch(False, stages=_STAGE_3),
    },
    "zero_optimization.offload_optimizer": {
        "buffer_count": _whole(4, ge=0),
        "cpuadam_cores_perc": _number(0.8, ge=0, le=1, stages=_STAGE_3),
        "fast_init": _switch(False),
        "pin_memory": _switch(True),
        "pipeline_read": _switch(False),
        "pipeline_write": _switch(False),
        "ratio": _number(1.0, ge=0, le=1, stages=_STAGE_3),
        "super_offload": _switch(False, stages=_STAGE_3),
    },
    "zero_optimization.offload_param": {
        "buffer_count": _whole(5, ge=0),
        "buffer_size": _whole(100_000_000, ge=0),
        "max_in_cpu": _whole(1_000_000_000, ge=0),
        "pin_memory": _switch(True),
    },
    "zero_optimization.leaf_module": {
        "classes": _texts(
            [
                "transformers.models.mixtral.modeling_mixtral.MixtralSparseMoeBlock",
                "transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeSparseMoeBlock",
                "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock",
            ],
            stages=_STAGE_3,
        ),
        "names": _texts([], stages=_STAGE_3),
        "name_suffixes": _texts([], stages=_STAGE_3),
    },
    "zero_optimization.zenflow": {
        "auto_ratio": _number(0.99, ge=0, le=1, stages=_SHARDED),
        "full_warm_up_rounds": _whole(0, stages=_SHARDED),
        "offload": _switch(False, stages=_SHARDED),
        "overlap_step": _switch(False, stages=_SHARDED),
        "pt_reserved_cores_perc": _number(0.5, ge=0, le=1, stages=_SHARDED),
        # "auto" is a choice of its own in these three.
        "select_interval": _whole("auto", stages=_SHARDED),
        "select_strategy": _text("auto", "auto", "step", "epoch"),
        "topk_ratio": _number(0.1, gt=0, lt=1, stages=_SHARDED),
        "update_interval": _whole("auto", ge=1, stages=_SHARDED),
    },
    "fp16": {
        "auto_cast": _switch(False),
        "consecutive_hysteresis": _switch(False),
        "fp16_master_weights_and_grads": _switch(False, stages=_SHARDED),
        "hysteresis": _whole(2),
        "initial_scale_power": _whole(16),
        "loss_scale": _number(0.0, ge=0),
        "loss_scale_window": _whole(1000, gt=0),
        "min_loss_scale": _whole(1, gt=0),
    },
    "bf16": {
        "bf16_master_weights_and_grads": _switch(False, stages=_SHARDED),
        "bf16_optimizer_states": _switch(False, stages=_SHARDED),
        "check_grad_overflow": _switch(True),
        "immediate_grad_update": _switch(False),
    },
    "data_types": {
        "buffer_dtype": _text(None, *_ANY_DTYPE),
        "grad_accum_dtype": _text(None, *_ANY_DTYPE),
        # "auto" is DeepSpeed's own word here.
        "keep_in_fp32_modules": _texts("auto"),
        "param_dtype": _text(None, *_ANY_DTYPE),
    },
    "torch_autocast": {
        "dtype": _text(None, *_ANY_DTYPE),
        "enabled": _switch(False),
        "lower_precision_safe_modules": _texts(None),
    },
    "optimizer": {"legacy_fusion": _switch(False)},
    "aio": {
        "block_size": _whole(1_048_576, gt=0),
        "intra_op_parallelism": _whole(1, gt=0),
        "overlap_events": _switch(True),
        "queue_depth": _whole(8, gt=0),
        "single_submit": _switch(False),
        "use_gds": _switch(False),
    },
    "comms_logger": {
        "debug": _switch(False),
        "enabled": _switch(False),
        "prof_all": _switch(True),
        "prof_ops": _texts([]),
        "verbose": _switch(False),
    },
    "flops_profiler": {
        "detailed": _switch(True),
        "enabled": _switch(False),
        "module_depth": _whole(-1, ge=-1),
        "output_file": _text(None),
        "profile_step": _whole(1, ge=0),
        "recompute_fwd_factor": _number(0.0, ge=0),
        "top_modules": _whole(1, gt=0),
    },
    "timers.throughput": {"enabled": _switch(True), "synchronized": _switch(True)},
    "tensorboard": {
        "enabled": _switch(False),
        "job_name": _text("DeepSpeedJobName"),
        "output_path": _text(""),
    },
    "csv_monitor": {
        "enabled": _switch(False),
        "job_name": _text("DeepSpeedJobName"),
        "output_path": _text(""),
    },
    "wandb": {
        "enabled": _switch(False),
        "group": _text(None),
        "project": _text("deepspeed"),
        "team": _text(None),
    },
    "comet": {
        "api_key": _text(None),
        "enabled": _switch(False),
        "experiment_key": _text(None),
        "experiment_name": _text(None),
        "mode": _text(None),
        "online": _switch(None),
        "project": _text(None),
        "samples_log_interval": _whole(100),
        "workspace": _text(None),
    },
}
SETTINGS: Mapping[str, Setting] = {
    f"{block}.{key}" if block else key: setting
    for block, settings in _BLOCKS.items()
    for key, setting in settings.items()
}
"""Dotted key -> what it takes."""

_TORCH = {"differentiable": _switch(False), "foreach": _switch(None), "maximize": _switch(False)}
_ADAM = {"amsgrad": _switch(False), "torch_adam": _switch(False)}
_OWN_ADAM = {**_ADAM, "bias_correction": _switch(True)}
OPTIMIZER_SETTINGS: Mapping[str, Mapping[str, Setting]] = {
    "torch_adam": {**_TORCH, **_ADAM, "capturable": _switch(False), "fused": _switch(None)},
    "cpu_adam": {**_OWN_ADAM, "fp32_optimizer_states": _switch(True)},
    "fused_adam": {**_OWN_ADAM, "set_grad_none": _switch(True)},
    "sgd": {
        **_TORCH,
        "dampening": _number(0.0),
        "fused": _switch(None),
        "nesterov": _switch(False),
    },
    "rmsprop": {
        **_TORCH,
        "alpha": _number(0.99, ge=0),
        "capturable": _switch(False),
        "centered": _switch(False),
    },
    "adafactor": {
        "beta2_decay": _number(-0.8, le=0),
        "d": _number(1.0, ge=1),
        "foreach": _switch(None),
        "maximize": _switch(False),
    },
    "cpu_lion": {"fp32_optimizer_states": _switch(True)},
    "fused_lion": {"set_grad_none": _switch(True)},
}
"""What each optimizer takes under `optimizer.params` beside what the job file says."""
