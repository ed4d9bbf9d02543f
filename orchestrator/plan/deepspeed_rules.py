"""Settings of a `deepspeed:` section that are right alone and that DeepSpeed refuses together.

Pure. Every finding's key is dotted, below `deepspeed`.

Source: deepspeed 0.19.8; each rule names its file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.plan.deepspeed_settings import DTYPES
from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec


def combination_findings(merged: Mapping[str, Any], *, spec: JobSpec) -> Iterator[Finding]:
    """Find settings that do not go with one another or with the job.

    Args:
        merged: the whole configuration, every value of the right type.
        spec: the job.
    """
    yield from _refused_sizes(merged, spec)
    yield from _refused_gradients(merged, spec)
    yield from _refused_types(merged, spec)


def _refused_sizes(merged: Mapping[str, Any], spec: JobSpec) -> Iterator[Finding]:
    zero, workers = merged["zero_optimization"], spec.resources.workers
    # utils/groups.py, `_create_zero_param_parallel_group`
    size = zero.get("zero_hpz_partition_size", 1)
    if size > 1 and workers % size:
        fitting = " or ".join(str(n) for n in range(1, workers + 1) if workers % n == 0)
        yield Finding(
            key="zero_optimization.zero_hpz_partition_size",
            message=f"{workers} workers do not divide into groups of {size}; write {fitting}",
        )
    # runtime/zero/stage_1_and_2.py, `nccl_start_alignment_factor`
    bucket = zero.get("allgather_bucket_size", 2)
    if spec.zero.stage in (1, 2) and (bucket < 2 or bucket % 2):
        yield Finding(
            key="zero_optimization.allgather_bucket_size",
            message=f"got {bucket}; must be even and at least 2",
        )


def _refused_gradients(merged: Mapping[str, Any], spec: JobSpec) -> Iterator[Finding]:
    zero, stage = merged["zero_optimization"], spec.zero.stage
    # runtime/zero/stage_1_and_2.py and stage3.py, `__init__`
    if stage >= 2 and zero.get("reduce_scatter", True):
        for key, plain in (("prescale_gradients", False), ("gradient_predivide_factor", 1)):
            if merged.get(key, plain) != plain:
                message = f"DeepSpeed refuses it at stage {stage}; set reduce_scatter: false under "
                yield Finding(key=key, message=f"{message}zero_optimization, or take it out")
    # runtime/config.py, `_do_error_check`
    if merged.get("gradient_allreduce_op") == "sum" and stage == 3:
        message = "DeepSpeed refuses sum at stage 3; take it out"
        yield Finding(key="gradient_allreduce_op", message=message)
    # runtime/zero/stage_1_and_2.py, `__init__`
    if not zero.get("compute_grad_norm", True):
        key = "zero_optimization.compute_grad_norm"
        if merged["gradient_clipping"]:
            message = (
                "clipping needs the norm; leave out training.gradient_clipping, or take it out"
            )
            yield Finding(key=key, message=message)
        if spec.zero.offload_optimizer != "none":
            message = "DeepSpeed refuses it with optimizer offload; take it out"
            yield Finding(key=key, message=message)


def _refused_types(merged: Mapping[str, Any], spec: JobSpec) -> Iterator[Finding]:
    precision = spec.training.precision
    same = DTYPES[precision]
    # runtime/engine.py, `_assert_valid_mixed_precision_config` and `_do_optimizer_sanity_check`
    dtypes = merged.get("data_types", {})
    if dtypes.get("param_dtype") not in (None, *same):
        message = f"training.precision is {precision}; take it out"
        yield Finding(key="data_types.param_dtype", message=message)
    if spec.zero.stage == 0 and dtypes.get("grad_accum_dtype") not in (None, *same):
        message = f"DeepSpeed refuses all but {precision} at stage 0; take it out"
        yield Finding(key="data_types.grad_accum_dtype", message=message)
    # runtime/config.py, `_do_error_check`
    bf16 = merged.get("bf16", {})
    if bf16.get("bf16_optimizer_states") and not bf16.get("bf16_master_weights_and_grads"):
        message = "needs bf16_master_weights_and_grads: true beside it; write both or none"
        yield Finding(key="bf16.bf16_optimizer_states", message=message)
