"""Collectives that a shadow run has called: what they send, and what gloo takes for itself.

Arithmetic on names and shapes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from orchestrator.forecast.shadow_result import Collective


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One call."""

    name: str
    phase: str
    micro_batch: int
    """From 0; those of the step belong to the last."""
    payload_bytes: int


def collectives_of(sent: Sequence[Sent], *, ran: int, wanted: int) -> tuple[Collective, ...]:
    """Add up calls by name and phase, for as many micro-batches as the plan has.

    Args:
        sent: the calls of one optimizer step.
        ran: micro-batches it had.
        wanted: those of the plan, no fewer; what is beyond repeats the second.
    """
    calls: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in sent:
        repeats = 1 + (wanted - ran) * (one.micro_batch == 1 and ran > 2)
        calls[one.name, one.phase] += [one.payload_bytes] * repeats
    return tuple(
        Collective(name=name, phase=phase, n_calls=len(payloads), payload_bytes=sum(payloads))
        for (name, phase), payloads in sorted(calls.items())
    )


def gloo_scratch_bytes(name: str, operands: Any) -> int:
    """The most bytes a collective takes beside its operands.

    Args:
        name: of torch's operation in the `c10d` namespace.
        operands: its arguments, outputs before inputs.

    Source:
        torch 2.13.0, torch/csrc/distributed/c10d/ProcessGroupGloo.cpp: `_reduce_scatter_base` sums
        a clone of its input; `allgather` and `_allgather_base` receive into one flat tensor.
    """
    tensors = [leaf for leaf in tree_leaves(operands) if isinstance(leaf, torch.Tensor)]
    sizes: list[int] = [tensor.numel() * tensor.element_size() for tensor in tensors]
    if name == "_reduce_scatter_base_":
        return sizes[1]
    if name == "_allgather_base_":
        return sizes[0]
    if name == "allgather_":
        # The last one is the input.
        return sum(sizes[:-1])
    return 0
