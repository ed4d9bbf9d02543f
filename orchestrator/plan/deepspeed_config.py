"""The exact dict that `deepspeed.initialize` gets, from the job file and its `deepspeed:` section.

Pure: our own part is built from the job, the user's part is checked and laid over it, and every
`"auto"` is replaced by the value it stands for. Nothing DeepSpeed would ignore gets through.

Source: deepspeed 0.19.8 `runtime/config.py` and `runtime/engine.py` (`_configure_basic_optimizer`).
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from orchestrator.plan.batch import Batch
from orchestrator.plan.buckets import bucket_sizes, nvme_buffer_size
from orchestrator.plan.deepspeed_keys import (
    OFFLOAD_BLOCKS,
    OFFLOAD_KEYS,
    OWNED,
    REJECTED,
    TOP_LEVEL_KEYS,
    ZERO_KEYS,
)
from orchestrator.spec.finding import Finding, did_you_mean
from orchestrator.spec.job import JobSpec
from orchestrator.spec.sections import OptimizerSection

AUTO = "auto"
_MISSING = object()
# Source: deepspeed 0.19.8, runtime/config_utils.py, `DeepSpeedConfigModel.__init__`, and
# runtime/constants.py, KEEP_IN_FP32_MODULES_DEFAULT.
_AUTO_IS_DEFAULT = ("zero_optimization.", "fp16.", "bf16.", "data_types.keep_in_fp32_modules")
# Every mapping that holds an owned key: whoever replaced it as a whole would replace that key.
_BLOCKS = frozenset(
    key[:end] for key in OWNED for end, letter in enumerate(key) if letter == "."
) | {"scheduler", "scheduler.params"}
_TORCH_NAMES = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "rmsprop": "RMSprop"}


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
    if zero.stage > 0 and training.optimizer.name in ("sgd", "rmsprop"):
        config["zero_allow_untested_optimizer"] = True
    if offloaded and not (cpu_adam and training.optimizer.name in ("adam", "adamw")):
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
    else:
        params["momentum"] = section.momentum
    if section.name == "rmsprop":
        params["eps"] = section.eps
    return {"type": _TORCH_NAMES[section.name], "params": params}


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
        The merged dict, without any `"auto"` left, and what is wrong with the section (dotted
        keys below `deepspeed`). The dict must not be used when there are findings.
    """
    findings = [*_unknown_keys(user), *_wrong_shapes(user, ours), *_without_effect(user, spec)]
    blamed = {finding.key for finding in findings}
    merged = deepcopy(ours)
    for key, value in _leaves(user):
        if any(key == bad or key.startswith(f"{bad}.") for bad in blamed):
            continue
        owner = next((o for k, o in OWNED.items() if key == k or key.startswith(f"{k}.")), None)
        if value == AUTO:
            if not _resolve_auto(merged, key, owner=owner):
                findings.append(Finding(key=key, message=_auto_message(key)))
        elif owner is not None:
            message = f"the job file says this under {owner}; set it there and take it out here"
            findings.append(Finding(key=key, message=f'{message} (or write "auto")'))
        elif key not in _BLOCKS:
            _put(merged, key, value)
    return merged, findings


def _resolve_auto(merged: dict[str, Any], key: str, *, owner: str | None) -> bool:
    """Whether it is known what `auto` stands for; our own value is then left as it is."""
    if _get(merged, key) is not _MISSING:
        return True
    if owner is not None and key.endswith(".enabled"):
        _put(merged, key, False)
        return True
    # What the job file leaves off has nothing to pass on. In these blocks DeepSpeed itself reads
    # "auto" as its default.
    return owner is not None or key.startswith(_AUTO_IS_DEFAULT)


def _auto_message(key: str) -> str:
    return f'"auto" has no value for {key}, and DeepSpeed does not understand it; write a value'


def _unknown_keys(user: dict[str, Any]) -> Iterator[Finding]:
    if _get(user, "optimizer.params.max_grad_norm") is not _MISSING:
        key = "optimizer.params.max_grad_norm"
        yield Finding(key=key, message=REJECTED[key])
    for key, value in user.items():
        if key in REJECTED:
            yield Finding(key=key, message=REJECTED[key])
        elif key not in TOP_LEVEL_KEYS:
            hint = did_you_mean(key, sorted(TOP_LEVEL_KEYS - REJECTED.keys()))
            yield Finding(key=key, message=f"DeepSpeed would ignore this key; {hint}take it out")
        elif key == "zero_optimization":
            yield from _unknown_zero_keys(value)


def _unknown_zero_keys(zero: object) -> Iterator[Finding]:
    if not isinstance(zero, dict):
        yield Finding(key="zero_optimization", message="expected a mapping; set zero.stage instead")
        return
    for key, value in zero.items():
        dotted = f"zero_optimization.{key}"
        if dotted in REJECTED:
            yield Finding(key=dotted, message=REJECTED[dotted])
        elif key not in ZERO_KEYS:
            hint = did_you_mean(key, sorted(ZERO_KEYS))
            yield Finding(
                key=dotted, message=f"DeepSpeed does not know this key; {hint}take it out"
            )
        elif key in OFFLOAD_BLOCKS and isinstance(value, dict):
            for inner in sorted(value.keys() - OFFLOAD_KEYS[key]):
                hint = did_you_mean(inner, sorted(OFFLOAD_KEYS[key]))
                yield Finding(
                    key=f"{dotted}.{inner}",
                    message=f"DeepSpeed does not know this key; {hint}take it out",
                )


def _wrong_shapes(user: dict[str, Any], ours: dict[str, Any]) -> Iterator[Finding]:
    """Plain values where DeepSpeed has a block, and the other way round."""
    for block in sorted(_BLOCKS - {"scheduler", "zero_optimization"}):
        value = _get(user, block)
        # `null` switches a block off, which says nothing new about one that is off.
        off = value is None and _get(ours, block) is _MISSING
        if value is not _MISSING and value != AUTO and not isinstance(value, dict) and not off:
            yield Finding(key=block, message="expected a mapping; write one or take it out")
    for key, value in _leaves(ours):
        theirs = _get(user, key)
        if isinstance(theirs, dict) and not isinstance(value, dict) and key not in OWNED:
            yield Finding(key=key, message="expected one value, not a mapping; take it out")


def _without_effect(user: dict[str, Any], spec: JobSpec) -> Iterator[Finding]:
    """Keys DeepSpeed would accept and then not act on under this job's strategy."""
    zero = user.get("zero_optimization")
    if not isinstance(zero, dict):
        return
    for key, value in zero.items():
        dotted = f"zero_optimization.{key}"
        if key.startswith("stage3_") and spec.zero.stage != 3 and value != AUTO:
            message = f"has no effect at stage {spec.zero.stage}; set zero.stage: 3 or take it out"
            yield Finding(key=dotted, message=message)
        offload = {
            "offload_optimizer": spec.zero.offload_optimizer,
            "offload_param": spec.zero.offload_params,
        }.get(key)
        if offload == "none" and _has_settings(value):
            owner = OFFLOAD_BLOCKS[key]
            message = f"has no effect while {owner} is none; set {owner} or take it out"
            yield Finding(key=dotted, message=message)


def _has_settings(block: object) -> bool:
    """Whether an offload block asks for something: `{device: auto}` and `{device: none}` do not."""
    if not isinstance(block, dict):
        return block is not None and block != AUTO
    return any(value not in (AUTO, "none") for value in block.values())


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _get(tree: dict[str, Any], dotted: str) -> Any:
    node: Any = tree
    for part in dotted.split("."):
        if not isinstance(node, dict) or part not in node:
            return _MISSING
        node = node[part]
    return node


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value
