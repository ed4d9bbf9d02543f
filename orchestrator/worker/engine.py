"""The seam between the training loop and whatever updates the weights.

Two engines stand behind it: DeepSpeed, and plain torch as the reference for stage 0.
"""

from collections.abc import Iterable
from typing import Protocol

import torch

from orchestrator.errors import OrchestratorError
from orchestrator.worker.roles import Role

Batch = dict[str, torch.Tensor]


class GradientNotFiniteError(OrchestratorError):
    """The global gradient is infinite or not a number; the weights were left as they are.

    Every rank raises it in the same step, since the gradient is the same on all of them.
    """


class Engine(Protocol):
    """What the loop asks of an engine. One optimizer step is `accumulation` micro-batches."""

    device: torch.device
    module: torch.nn.Module
    """The user's model."""
    torch_optimizer: torch.optim.Optimizer | None
    """What updates; its hooks tell when."""
    updates_on_host: bool
    """The update runs in host memory: optimizer state is offloaded."""

    def forward(self, batch: Batch) -> torch.Tensor:
        """Compute the mean loss of one micro-batch (a scalar with a graph)."""
        ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradient of one micro-batch; `last` marks the end of the accumulation."""
        ...

    def step(self, *, lr: float) -> float | None:
        """Update the weights; return the norm of the global gradient before clipping, if known.

        Raises:
            GradientNotFiniteError: there is nothing to update with, and no loss scale to lower.
        """
        ...

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean loss and logits of a batch, without a graph and in evaluation mode."""
        ...

    def skipped_steps(self) -> int:
        """Updates left out so far because a gradient was not finite."""
        ...

    def roles(self) -> Iterable[Role]:
        """What the engine's tensors are for that are there at this moment."""
        ...

    def swapped_bytes(self) -> int | None:
        """What this rank keeps in files on NVMe; `None` when the strategy puts nothing there."""
        ...

    def close(self) -> None:
        """Give back buffers, files and hooks."""
        ...
