"""From a model's output to its loss and logits. B batch, T tokens, C classes."""

from typing import Any

import torch
from torch.nn import functional

IGNORED_LABEL = -100
"""Torch's cross-entropy leaves these samples out."""


def read_output(
    output: Any, batch: dict[str, torch.Tensor], *, loss: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Find the loss and the logits in what a model returned.

    Args:
        output: an object with `.loss`, one with `.logits`, or a tensor of logits.
        batch: the model's input; `labels` is needed when the model returns no loss.
        loss: `training.loss`.

    Returns:
        The mean loss (scalar), and the logits if there are any.

    Raises:
        ValueError: there is neither a loss nor logits with labels to compute one from.
    """
    own_loss, logits = parts_of(output)
    if own_loss is not None:
        return own_loss, logits
    if logits is None:
        raise ValueError(
            f"the model returned {type(output).__name__} without .loss or .logits; "
            "return an object with one of them, or a tensor of logits"
        )
    if "labels" not in batch:
        raise ValueError(
            f"the model returned logits and the batch has no labels (it has {sorted(batch)}); "
            "add labels to the data or let the model return .loss"
        )
    labels = batch["labels"]
    if loss == "cross_entropy":
        check_labels(labels, n_classes=logits.shape[-1])
        if labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"labels have the shape {tuple(labels.shape)} and the model's logits have "
                f"{tuple(logits.shape)}; cross_entropy needs one label for each row of logits, "
                "with the classes in the last axis"
            )
        return functional.cross_entropy(logits.flatten(0, -2), labels.flatten()), logits
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels have the shape {tuple(labels.shape)} and the model's output has "
            f"{tuple(logits.shape)}; training.loss: {loss} needs them equal"
        )
    distance = functional.mse_loss if loss == "mse" else functional.l1_loss
    return distance(logits, labels.to(logits.dtype)), logits


def parts_of(output: Any) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The loss and the logits that a model returned, each if it did."""
    logits = output if isinstance(output, torch.Tensor) else getattr(output, "logits", None)
    return getattr(output, "loss", None), logits


def check_labels(labels: torch.Tensor, *, n_classes: int) -> None:
    """Refuse labels that no class stands for; torch's own words for it name neither.

    Raises:
        ValueError: a label lies outside 0 to n_classes - 1 (and is not ignored).
    """
    if labels.is_floating_point():
        raise ValueError(
            f"labels are {labels.dtype} and cross_entropy needs whole numbers; "
            "return integer labels or set training.loss: mse"
        )
    if labels.device.type != "cpu":
        # Reading values would wait for the GPU in every step; its kernel checks them itself.
        return
    kept = labels[labels != IGNORED_LABEL]
    if kept.numel() and (int(kept.min()) < 0 or int(kept.max()) >= n_classes):
        raise ValueError(
            f"labels reach from {int(kept.min())} to {int(kept.max())} and the model has "
            f"{n_classes} classes (0 to {n_classes - 1}); change the data or the model"
        )


def n_correct(logits: torch.Tensor | None, labels: torch.Tensor | None) -> int | None:
    """How many samples are classified right; `None` where that question has no meaning."""
    if logits is None or labels is None or labels.is_floating_point():
        return None
    if labels.shape != logits.shape[:-1] or labels.dim() != 1:
        return None
    return int((logits.argmax(dim=-1) == labels).sum())
