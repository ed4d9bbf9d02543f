"""What our own classifiers return: a loss, if labels were given, and logits."""

from typing import NamedTuple

import torch
from torch import nn


class ClassifierOutput(NamedTuple):
    """Loss and logits.

    A named tuple, since DeepSpeed's stage-3 hooks look for tensors only in tuples, lists and dicts.

    Source:
        DeepSpeed 0.19.8, `runtime/zero/utils.py`, `apply_to_tensors_only`.
    """

    loss: torch.Tensor | None
    logits: torch.Tensor


def classify(logits_BK: torch.Tensor, labels_B: torch.Tensor | None) -> ClassifierOutput:
    """Add the mean cross-entropy to logits. B = samples, K = classes.

    Args:
        logits_BK: Any float type; the loss is computed in fp32.
        labels_B: Class numbers, or None for no loss.
    """
    loss = None
    if labels_B is not None:
        loss = nn.functional.cross_entropy(logits_BK.float(), labels_B)
    return ClassifierOutput(loss, logits_BK)
