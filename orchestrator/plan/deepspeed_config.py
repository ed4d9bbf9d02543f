"""The exact dict that `deepspeed.initialize` gets, from the job file and its `deepspeed:` section.

Pure: our own part is built from the job, the user's part is checked and laid over it, and every
`"auto"` is replaced by the value it stands for: ours, or else DeepSpeed's default. Nothing that
DeepSpeed would ignore gets through.

Source: deepspeed 0.19.8 `runtime/config.py` and `runtime/engine.py` (`_configure_basic_optimizer`).
"""

from copy import deepcopy
from typing import Any

from orchestrator.plan.batch import Batch
from orchestrator.plan.buckets import bucket_sizes, nvme_buffer_size
from orchestrator.plan.deepspeed_check import (
    AUTO,
    OFFLOAD_BLOCKS,
    OPTIMIZER_TYPES,
    entries,
    is_off,
    section_findings,
    settings_of,
)
from orchestrator.plan.deepspeed_rules import combination_findings
from orchestrator.plan.deepspeed_settings import Setting
from orchestrator.plan.dotted import MISSING, get, put
from orchestrator.spec.finding import Finding
from orchestrator.spec.job import JobSpec
from orchestrator.spec.model import ResnetModel
from orchestrator.spec.sections import OptimizerSection

_UNTESTED = ("sgd", "rmsprop", "adafactor")
"""Optimizers of torch that ZeRO takes only if told to."""


def deepspeed_config(
    spec: JobSpec, *, batch: Batch, n_params: int, device: str, cpu_adam: bool = True
) -> dict[str, Any]:
    """Build our part of DeepSpeed's configuration.

    Args:
        spec: the job.
        batch: its resolved batch sizes.
        n_params: trainable parameters, from which buffers are sized.
        device: `cpu` or `cuda`; memory is pinned only where there is a GPU to copy to.
        cpu_adam: whether DeepSpeed's compiled CPU Adam can be used for an offloaded optimizer;
            else torch's Adam runs on the host, slower and with the same result.

    Returns:
        The dict, all values plain JSON.
    """
    training, zero = spec.training, spec.zero
    offloaded = zero.offload_optimizer != "none"
    config: dict[str, Any] = {
        "train_batch_size": batch.global_batch_size,
        "train_micro_batch_size_per_gpu": batch.micro_batch_size,
        "gradient_accumulation_steps": batch.accumulation_steps,
        "steps_per_print": None,
        # Left out, DeepSpeed would clip at 1.0.
        "gradient_clipping": training.gradient_clipping or 0.0,
        "optimizer": _optimizer(training.optimizer, torch_adam=not (offloaded and cpu_adam)),
        "zero_optimization": _zero(spec, n_params=n_params, device=device),
    }
    if training.precision != "fp32":
        config[training.precision] = {"enabled": True}
    if device == "cpu" and training.precision == "bf16" and isinstance(spec.model, ResnetModel):
        # torch's batch norm on the CPU wants its running means in the type of its weights, and
        # DeepSpeed would leave them in fp32 (runtime/engine.py, `_cast_module_mixed_precision`).
        config["data_types"] = {"buffer_dtype": "bf16"}
    if zero.stage > 0 and training.optimizer.name in _UNTESTED:
        config["zero_allow_untested_optimizer"] = True
    own_on_host = training.optimizer.name == "lion" or (cpu_adam and needs_cpu_adam(spec))
    if offloaded and not own_on_host:
        config["zero_force_ds_cpu_optimizer"] = False
    return config


def needs_cpu_adam(spec: JobSpec) -> bool:
    """Whether DeepSpeed's compiled CPU Adam updates this job's parameters."""
    adam = spec.training.optimizer.name in ("adam", "adamw")
    return adam and spec.zero.offload_optimizer != "none"


def _optimizer(section: OptimizerSection, *, torch_adam: bool) -> dict[str, Any]:
    params: dict[str, Any] = {"lr": section.lr, "weight_decay": section.weight_decay}
    if section.name in ("adamw", "adam"):
        params |= {"betas": list(section.betas), "eps": section.eps, "torch_adam": torch_adam}
        # DeepSpeed's "Adam" means AdamW unless told otherwise.
        params["adam_w_mode"] = section.name == "adamw"
    elif section.name == "lion":
        params["betas"] = list(section.betas)
    elif section.name in ("sgd", "rmsprop"):
        params["momentum"] = section.momentum
    if section.name == "rmsprop":
        params["eps"] = section.eps
    return {"type": OPTIMIZER_TYPES[section.name], "params": params}


def _zero(spec: JobSpec, *, n_params: int, device: str) -> dict[str, Any]:
    zero = spec.zero
    config: dict[str, Any] = {"stage": zero.stage, **bucket_sizes(n_params, stage=zero.stage)}
    for block, target in (
        ("offload_optimizer", zero.offload_optimizer),
        ("offload_param", zero.offload_params),
    ):
        if target == "none":
            continue
        config[block] = {"device": target, "pin_memory": device == "cuda"}
        if target == "nvme":
            config[block]["nvme_path"] = zero.nvme_path
        if block == "offload_param" and target == "nvme":
            config[block] |= {"buffer_size": nvme_buffer_size(n_params), "max_in_cpu": 0}
            # Prefetching asks twice for a parameter that forward and backward both need soon, and
            # dies of it (zero/partitioned_param_coordinator.py, __prefetch_nvme_param_partitions).
            config["stage3_prefetch_bucket_size"] = 0
    return config


def merge_user_config(
    ours: dict[str, Any], user: dict[str, Any], *, spec: JobSpec
) -> tuple[dict[str, Any], list[Finding]]:
    """Lay the user's `deepspeed:` section over our part.

    Returns:
        The merged dict, every `"auto"` in it replaced by what it stands for, and what is wrong
        with the section (dotted keys below `deepspeed`). The dict must not be used when there are
        findings.
    """
    findings = list(section_findings(user, ours, spec=spec))
    blamed = {finding.key for finding in findings}
    settings = settings_of(user, ours, spec=spec)
    merged = deepcopy(ours)
    for key, value in entries(user):
        if key not in blamed:
            _lay(merged, key, value, setting=settings.get(key), spec=spec)
    findings += combination_findings(merged, spec=spec)
    return merged, findings


def _lay(
    merged: dict[str, Any], key: str, value: Any, *, setting: Setting | None, spec: JobSpec
) -> None:
    """Write one entry of the section that nothing is wrong with."""
    block = key if key in OFFLOAD_BLOCKS else key.rpartition(".")[0]
    if is_off(block, spec):
        put(merged, block, None)
    elif setting is not None and value != AUTO:
        whole = setting.type is int and isinstance(value, float)
        put(merged, key, int(value) if whole else value)
    elif get(merged, key) is MISSING:
        default = setting.default if setting else _default_of_owned(key, value)
        if default is not MISSING:
            put(merged, key, deepcopy(default))


def _default_of_owned(key: str, value: Any) -> Any:
    """What DeepSpeed has for a key of which the job file has nothing to tell, if anything."""
    if key.endswith(".enabled"):
        return False
    if key.endswith(".nvme_path"):
        return None
    # An empty block may switch something on by being there.
    return {} if value == {} else MISSING
