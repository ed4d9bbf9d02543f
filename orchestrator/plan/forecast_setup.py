"""The forecast's Setup of a plan: what DeepSpeed will do with the exact dict it gets. Pure.

Source: defaults of deepspeed 0.19.8, runtime/zero/config.py, runtime/zero/offload_config.py and
runtime/engine.py (`get_data_types`, `_configure_optimizer`).
"""

from typing import Any, Literal

from orchestrator.forecast.setup import OptimizerName, Precision, Setup
from orchestrator.plan.buckets import (
    LIVE_DEFAULT,
    NVME_BUFFER_DEFAULT,
    PERSISTENCE_DEFAULT,
    PREFETCH_BUCKET_DEFAULT,
    REDUCE_BUCKET_DEFAULT,
)
from orchestrator.plan.dotted import MISSING, get
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.sections import OptimizerSection

SUB_GROUP_DEFAULT = 1_000_000_000
_MOMENTS = {"adamw": 2, "adam": 2, "rmsprop": 1, "adafactor": 1, "lion": 1}
_DTYPES = {
    "fp32": "fp32", "float32": "fp32", "float": "fp32", "torch.float32": "fp32",
    "bf16": "bf16", "bfloat16": "bf16", "torch.bfloat16": "bf16",
    "fp16": "fp16", "float16": "fp16", "half": "fp16", "torch.float16": "fp16",
}  # fmt: skip


def setup_of(plan: LaunchPlan, *, ranks_per_node: int | None = None) -> Setup:
    """Read what decides memory and traffic off a plan.

    Args:
        plan: what would run.
        ranks_per_node: how many ranks share a node; `None`: all of them.
    """
    spec, config = plan.spec, plan.deepspeed or {}
    precision = spec.training.precision
    zero, optimizer = spec.zero, spec.training.optimizer
    on_gpu = plan.resources.device == "cuda"
    return Setup(
        engine=spec.training.engine,
        stage=zero.stage,
        n_ranks=plan.resources.workers,
        ranks_per_node=min(ranks_per_node or plan.resources.workers, plan.resources.workers),
        precision=precision,
        optimizer=_optimizer(optimizer),
        n_moments=_n_moments(plan),
        state_dtype="bf16" if _setting(config, "bf16.bf16_optimizer_states", False) else "fp32",
        fused_optimizer=_is_fused(plan, config),
        offload_optimizer=zero.offload_optimizer,
        offload_params=zero.offload_params,
        pinned=on_gpu and _is_pinned(config),
        activation_checkpointing=spec.training.activation_checkpointing,
        micro_batch_size=plan.batch.micro_batch_size,
        accumulation_steps=plan.batch.accumulation_steps,
        grad_accum_dtype=_dtype(config, "data_types.grad_accum_dtype", precision),
        communication_dtype=_dtype(config, "communication_data_type", precision),
        overlap_comm=bool(_zero(config, "overlap_comm", zero.stage == 3)),
        gradient_clipping=bool(config.get("gradient_clipping")),
        device="cuda" if on_gpu else "cpu",
        reduce_bucket_elements=_zero(config, "reduce_bucket_size", REDUCE_BUCKET_DEFAULT),
        prefetch_bucket_elements=_zero(
            config, "stage3_prefetch_bucket_size", PREFETCH_BUCKET_DEFAULT
        ),
        persistence_threshold_elements=_zero(
            config, "stage3_param_persistence_threshold", PERSISTENCE_DEFAULT
        ),
        max_live_elements=_zero(config, "stage3_max_live_parameters", LIVE_DEFAULT),
        max_reuse_distance_elements=_zero(config, "stage3_max_reuse_distance", LIVE_DEFAULT),
        sub_group_elements=_zero(config, "sub_group_size", SUB_GROUP_DEFAULT),
        multi_rank_bucket_allreduce=_zero(config, "use_multi_rank_bucket_allreduce", True),
        swap_buffer_count=_zero(config, "offload_optimizer.buffer_count", 4),
        param_buffer_count=_zero(config, "offload_param.buffer_count", 5),
        param_buffer_elements=_zero(config, "offload_param.buffer_size", NVME_BUFFER_DEFAULT),
    )


def _n_moments(plan: LaunchPlan) -> int:
    optimizer = plan.spec.training.optimizer
    # DeepSpeedCPULion makes a second one that it never uses (ops/lion/cpu_lion.py).
    unused = optimizer.name == "lion" and plan.spec.zero.offload_optimizer != "none"
    # Other rules ignore the momentum that a variant of a comparison may need.
    momentum = optimizer.name in ("sgd", "rmsprop") and optimizer.momentum > 0
    return _MOMENTS.get(optimizer.name, 0) + momentum + unused


def _optimizer(section: OptimizerSection) -> OptimizerName:
    if section.name == "sgd":
        return "momentum" if section.momentum > 0 else "sgd"
    return section.name


def _is_fused(plan: LaunchPlan, config: dict[str, Any]) -> bool:
    """Whether DeepSpeed's own kernel updates: on the host where it can be built, or on a GPU."""
    if {"cpu_adam", "cpu_lion"} & set(plan.compiled_ops):
        return True
    kind = str(_setting(config, "optimizer.type", "")).lower()
    own = kind in ("adam", "adamw") and not _setting(config, "optimizer.params.torch_adam", False)
    return plan.resources.device == "cuda" and (own or kind == "lion")


def _is_pinned(config: dict[str, Any]) -> bool:
    blocks = ("offload_optimizer", "offload_param")
    return any(_zero(config, f"{block}.pin_memory", False) for block in blocks)


def _zero(config: dict[str, Any], key: str, default: Any) -> Any:
    return _setting(config, f"zero_optimization.{key}", default)


def _setting(config: dict[str, Any], key: str, default: Any) -> Any:
    value = get(config, key)
    return default if value is MISSING or value is None else value


def _dtype(config: dict[str, Any], key: str, default: Precision) -> Precision:
    named = _DTYPES.get(str(_setting(config, key, default)).lower(), default)
    known: dict[str, Literal["fp32", "bf16", "fp16"]] = {
        "fp32": "fp32", "bf16": "bf16", "fp16": "fp16",
    }  # fmt: skip
    return known[named]
