"""Plain torch: the reference that every DeepSpeed stage is compared with. Stage 0, fp32."""

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.sections import OptimizerSection
from orchestrator.worker.engine import Batch, GradientNotFiniteError
from orchestrator.worker.objective import read_output
from orchestrator.worker.roles import Role, module_roles, tensors_in


class TorchEngine:
    """Data-parallel training with one all-reduce of all gradients per optimizer step."""

    def __init__(self, plan: LaunchPlan, model: torch.nn.Module, *, device: torch.device) -> None:
        self.device = device
        self._training = plan.spec.training
        self._accumulation = plan.batch.accumulation_steps
        self.module = model.to(device)
        self.updates_on_host = False
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.torch_optimizer = make_optimizer(self._training.optimizer, self._parameters)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Compute the mean loss of one micro-batch."""
        self.module.train()
        return read_output(self.module(**batch), batch, loss=self._training.loss)[0]

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradient; average it over the ranks after the last micro-batch."""
        (loss / self._accumulation).backward()
        if last and dist.get_world_size() > 1:
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            flat = _flatten_dense_tensors(gradients)
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
            averaged = _unflatten_dense_tensors(flat, gradients)
            torch._foreach_copy_(gradients, list(averaged))

    def step(self, *, lr: float) -> float | None:
        """Update the weights with this learning rate.

        Raises:
            GradientNotFiniteError: the gradient is not finite.
        """
        clip = self._training.gradient_clipping
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, clip or math.inf))
        if not math.isfinite(norm):
            raise GradientNotFiniteError("the gradient is not finite")
        for group in self.torch_optimizer.param_groups:
            group["lr"] = lr
        self.torch_optimizer.step()
        self.torch_optimizer.zero_grad(set_to_none=True)
        return norm

    def predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean loss and logits, in evaluation mode."""
        self.module.eval()
        with torch.no_grad():
            return read_output(self.module(**batch), batch, loss=self._training.loss)

    def skipped_steps(self) -> int:
        """Plain torch never skips."""
        return 0

    def roles(self) -> Iterator[Role]:
        """Weights, gradients and the optimizer's state, all on the device."""
        yield from module_roles(self.module)
        for tensor in tensors_in(dict(self.torch_optimizer.state)):
            yield Role(tensor, "optimizer")

    def swapped_bytes(self) -> int | None:
        """Plain torch writes no files."""
        return None

    def close(self) -> None:
        """Drop the optimizer's state."""
        self.torch_optimizer.state.clear()


def make_optimizer(
    section: OptimizerSection, parameters: list[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """The torch optimizer that a job file names.

    Raises:
        ValueError: it is `lion`, which torch does not have and a rule of the job file refuses.
    """
    lr, decay = section.lr, section.weight_decay
    if section.name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=section.momentum)
    if section.name == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=lr, weight_decay=decay, momentum=section.momentum, eps=section.eps
        )
    if section.name == "adafactor":
        return torch.optim.Adafactor(parameters, lr=lr, weight_decay=decay)
    if section.name == "lion":
        raise ValueError("torch has no Lion")
    adam = torch.optim.AdamW if section.name == "adamw" else torch.optim.Adam
    return adam(parameters, lr=lr, betas=section.betas, eps=section.eps, weight_decay=decay)
