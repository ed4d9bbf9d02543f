"""Activation checkpointing: blocks keep only their input and compute the rest again later.

BatchNorm would take the recomputed batch into its running statistics a second time; they are held
still while a block is recomputed.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from orchestrator.errors import UsageError


def enable_activation_checkpointing(model: nn.Module) -> None:
    """Make the model recompute its blocks' activations in the backward pass, in place.

    Losses, gradients and running statistics stay as without it, for models of transformers and
    blocks wrapped here. A model's own `gradient_checkpointing_enable` answers for itself.

    Args:
        model: Its parameter names do not change. Calling this twice is as calling it once.

    Raises:
        UsageError: There is nothing to wrap.
    """
    if getattr(model, "supports_gradient_checkpointing", False):
        model.activation_checkpointing_enable(
            activation_checkpointing_kwargs={
                "use_reentrant": False,
                "context_fn": _held(model),
            }
        )
    elif not hasattr(model, "activation_checkpointing_enable") and hasattr(
        model, "gradient_checkpointing_enable"
    ):
        model.gradient_checkpointing_enable()
    else:
        blocks = find_blocks(model)
        if not blocks:
            raise UsageError(
                f"activation_checkpointing: {type(model).__name__} has no blocks to recompute; "
                "keep them in a torch.nn.ModuleList or Sequential, each a module of several "
                "layers, give the model a gradient_checkpointing_enable() method, or leave it off"
            )
        for block in blocks:
            if not isinstance(block.forward, CheckpointedForward):
                block.forward = CheckpointedForward(
                    block=block, forward=block.forward, held=_held(block)
                )


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """List the modules worth recomputing as a whole, in order, none inside another.

    Returns:
        The residual blocks of a transformers ResNet; else the elements of the outermost lists and
        sequences, but for torch's single layers, whose input would be kept anyway.
    """
    if getattr(getattr(model, "config", None), "model_type", None) == "resnet":
        from orchestrator.models.resnet import residual_blocks

        return residual_blocks(model)
    if isinstance(model, nn.ModuleList | nn.Sequential):
        return [element for element in model if not _is_single_layer(element)]
    return [block for child in model.children() for block in find_blocks(child)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStatistics:
    """The contexts of a block's two runs: in the second, running statistics stay as they are.

    The batch is still normalised with its own statistics. With momentum 0 the same tensors are
    saved for the backward pass as in the first run; with the statistics switched off there would
    be fewer, and torch's checkpoint would refuse.

    An object rather than a closure, so that a deep copy of the model holds its own layers.
    """

    layers: tuple[_NormBase, ...]

    def __call__(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Give `torch.utils.checkpoint` its contexts for the first and the second run."""
        return contextlib.nullcontext(), self._hold()

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        before = [(layer.momentum, layer.num_batches_tracked) for layer in self.layers]
        for layer in self.layers:
            layer.momentum = 0.0
            # The second run counts in a copy.
            layer.num_batches_tracked = layer.num_batches_tracked.clone()
        try:
            yield
        finally:
            for layer, (momentum, n_batches) in zip(self.layers, before, strict=True):
                layer.momentum, layer.num_batches_tracked = momentum, n_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointedForward:
    """A block's forward that is run again in the backward pass; the plain one outside training."""

    block: nn.Module
    forward: Callable[..., Any]
    held: HeldStatistics

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block."""
        if not (self.block.training and torch.is_grad_enabled()):
            return self.forward(*args, **kwargs)
        return checkpoint(self.forward, *args, use_reentrant=False, context_fn=self.held, **kwargs)


def _held(module: nn.Module) -> HeldStatistics:
    """Find the layers of a module that keep running statistics."""
    return HeldStatistics(
        layers=tuple(
            layer
            for layer in module.modules()
            if isinstance(layer, _NormBase) and layer.track_running_stats
        )
    )


def _is_single_layer(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.") and not any(module.children())
