"""What operations on fake tensors would take, send and compute, written down as they run.

A dispatch mode below the allocation trace: it sees the same operations in the same order. What one
takes for itself on a CPU is tried afterwards on real tensors of its shapes (`scratch`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from orchestrator.worker.shadow.collectives import Sent, gloo_scratch_bytes
from orchestrator.worker.shadow.scratch import Attempt, Scratch


class ShadowOperations(TorchDispatchMode):  # type: ignore[misc]
    """Watches operations; stands where a real step has torch's profiler (`OperationMemory`)."""

    def __init__(self, scratch: Scratch, *, gloo: bool) -> None:
        """Watch one window.

        Args:
            scratch: where to look up what operations take for themselves.
            gloo: the ranks are CPU processes, and what operations and collectives take for
                themselves counts; else they are GPUs, whose kernels' workspace is not known.
        """
        super().__init__()
        self._scratch = scratch
        self._gloo = gloo
        self.phase, self.micro_batch = "init", 0
        self.sent: list[Sent] = []
        self.flops = 0
        self._operations: list[Attempt | int | None] = []

    def begin(self) -> None:
        """A new window: forget what was seen before."""
        self.sent, self.flops, self._operations = [], 0, []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look on while operations run inside."""
        with self:
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and write down what it was."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += int(count(*args, **kwargs, out_val=result))
        scratch: Attempt | int | None = None
        if func.namespace == "c10d":
            operands = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
            name = func._overloadpacket.__name__
            payload_bytes = max(map(_n_bytes, operands), default=0)
            self.sent.append(
                Sent(
                    name=name,
                    phase=self.phase,
                    micro_batch=self.micro_batch,
                    payload_bytes=payload_bytes,
                )
            )
            if self._gloo:
                scratch = gloo_scratch_bytes(name, args)
        elif self._gloo:
            scratch = self._scratch.note(func, args, kwargs)
        self._operations.append(scratch)
        return result

    def peaks(self) -> list[int]:
        """The most bytes each operation would have taken while it ran, results included.

        To be asked for outside of fake tensors.
        """
        return [
            self._scratch.peak_bytes(one) if isinstance(one, tuple) else one or 0
            for one in self._operations
        ]


def _n_bytes(tensor: torch.Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
