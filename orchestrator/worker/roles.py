"""What DeepSpeed's tensors are for: category and place of each, by the name it is kept under.

Source: deepspeed 0.19.8, runtime/zero/stage_1_and_2.py, runtime/zero/stage3.py,
runtime/bf16_optimizer.py, runtime/fp16/fused_optimizer.py, runtime/fp16/unfused_optimizer.py,
runtime/swap_tensor/optimizer_utils.py and partitioned_param_swapper.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from orchestrator.spec.sections import ZeroSection


class Role(NamedTuple):
    """A tensor, what it is for, and whether the strategy keeps it in host memory."""

    tensor: torch.Tensor
    category: str
    on_host: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Attributes of DeepSpeed's optimizer that hold one kind of tensor."""

    category: str
    names: tuple[str, ...]
    follows: str = ""
    """Which offload moves them to the host: `optimizer`, `params`, or none."""


# Of one storage under two names the last one told stands: what may lie on the host after what may
# not, and what things pass through at the end.
_ZERO_ATTRIBUTES = (
    _Kept(
        category="params",
        names=("bit16_groups_flat", "bf16_groups_flat", "fp16_groups_flat"),
    ),
    _Kept(
        category="params",
        names=("param_groups_fp16_flat_cpu_memory", "fp16_partitioned_groups_flat"),
        follows="params",
    ),
    _Kept(
        category="optimizer",
        names=(
            "single_partition_of_fp32_groups",
            "fp32_partitioned_groups_flat",
            "fp32_groups_flat_partition",
            "fp32_groups_flat",
            "fp32_groups",
        ),
        follows="optimizer",
    ),
    _Kept(
        category="gradients",
        names=(
            "averaged_gradients",
            "all_grad_tensors",
            "grads_in_partition",
            "fp32_groups_gradients_flat",
        ),
    ),
    _Kept(
        category="gradients",
        names=("grad_partitions_flat_buffer", "accumulated_grads_in_cpu"),
        follows="optimizer",
    ),
    _Kept(category="buffers", names=("temp_grad_buffer_for_gpu_offload",)),
    _Kept(
        category="buffers",
        names=("temp_grad_buffer_for_cpu_offload", "param_buffer_of_bit16_for_cpu_offload_groups"),
        follows="optimizer",
    ),
)
_SWAP_BUFFERS = ("buffers", "partitioned_swap_buffer")


def zero_roles(optimizer: Any, module: torch.nn.Module, zero: ZeroSection) -> Iterator[Role]:
    """Tell what the tensors are for that are there at this moment.

    Args:
        optimizer: the engine's, whichever class DeepSpeed took.
        module: the user's model.
        zero: the strategy.
    """
    on_host = {
        "optimizer": zero.offload_optimizer != "none",
        "params": zero.offload_params != "none",
        "": False,
    }
    yield from _module_roles(module, stage=zero.stage, sharded_on_host=on_host["params"])
    inner = inner_optimizer(optimizer)
    for tensor in tensors_in(dict(getattr(inner, "state", {}))):
        yield Role(tensor, "optimizer", on_host["optimizer"])
    for kept in _ZERO_ATTRIBUTES:
        host = on_host[kept.follows]
        for name in kept.names:
            for tensor in tensors_in(getattr(optimizer, name, None)):
                yield Role(tensor, kept.category, host)
                if kept.category == "optimizer" and tensor.grad is not None:
                    yield Role(tensor.grad, "gradients", host)
    for bucket in getattr(optimizer, "ipg_buckets", {}).values():
        for tensor in tensors_in(bucket.buffer):
            yield Role(tensor, "buffers")
    swapper = getattr(optimizer, "optimizer_swapper", None)
    manager = getattr(swapper, "swap_buffer_manager", None)
    for tensor in tensors_in(getattr(manager, "all_buffers", None)):
        yield Role(tensor, "buffers", on_host=True)


def inner_optimizer(optimizer: Any) -> torch.optim.Optimizer | None:
    """The torch optimizer that updates; DeepSpeed's own classes wrap it, more than once."""
    while optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        optimizer = getattr(optimizer, "optimizer", None)
    return optimizer


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor inside nested lists and dicts."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def module_roles(module: torch.nn.Module) -> Iterator[Role]:
    """Weights, gradients and buffers of a model that is not sharded."""
    return _module_roles(module, stage=0, sharded_on_host=False)


def _module_roles(module: torch.nn.Module, *, stage: int, sharded_on_host: bool) -> Iterator[Role]:
    for buffer in module.buffers():
        yield Role(buffer, "params")
    for parameter in module.parameters():
        if parameter.grad is not None:
            yield Role(parameter.grad, "gradients")
        shard = getattr(parameter, "ds_tensor", None)
        if stage < 3 or shard is None:
            yield Role(parameter.data, "params")
            continue
        # Whole, it is made of what other ranks sent; on NVMe the shard is a part of a buffer.
        yield Role(parameter.data, "gathered")
        yield Role(shard, "params", sharded_on_host)
        swapper = getattr(parameter, "nvme_swapper", None)
        for name in _SWAP_BUFFERS:
            for tensor in tensors_in(getattr(swapper, name, None)):
                yield Role(tensor, "buffers", sharded_on_host)
