"""Who uses which memory on a probe step: hooks that tell the trace while the engine works.

What DeepSpeed keeps between steps can be asked for at any time (`Engine.roles`). What it makes and
drops inside a step is caught in use: weights gathered for a module as its forward begins, a
gradient as it arrives at its parameter, the optimizer's copies as its update begins.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from orchestrator.worker.engine import Engine
from orchestrator.worker.probes.allocations import AllocationTrace
from orchestrator.worker.probes.replay import BY_USE
from orchestrator.worker.roles import Role


@contextmanager
def attributed(trace: AllocationTrace, engine: Engine) -> Iterator[None]:
    """Tell the trace what the engine's memory is for, while it runs inside.

    Args:
        trace: the one that is on.
        engine: its hooks and graph are as before afterwards.
    """
    tell_roles(trace, engine)
    handles: list[Any] = []
    with ExitStack() as updates:

        def weights_in_use(module: torch.nn.Module, _inputs: object) -> None:
            for parameter in module.parameters(recurse=False):
                _tell_weight(trace, parameter)

        def update_begins(*_arguments: object) -> None:
            tell_roles(trace, engine)
            if engine.updates_on_host:
                updates.enter_context(trace.made_on_host())

        def update_ends(*_arguments: object) -> None:
            tell_roles(trace, engine)
            updates.close()

        for module in engine.module.modules():
            handles.append(module.register_forward_pre_hook(weights_in_use))
        for parameter in engine.module.parameters():
            if parameter.requires_grad:
                handles.append(parameter.register_hook(_GradientArrives(trace, parameter)))
        if engine.torch_optimizer is not None:
            handles.append(engine.torch_optimizer.register_step_pre_hook(update_begins))
            handles.append(engine.torch_optimizer.register_step_post_hook(update_ends))
        try:
            yield
            tell_roles(trace, engine)
        finally:
            for handle in handles:
                handle.remove()


def tell_roles(trace: AllocationTrace, engine: Engine) -> None:
    """Tell the trace the role of everything that the engine keeps at this moment."""
    mark_all(trace, engine.roles())


def mark_all(trace: AllocationTrace, roles: Iterable[Role]) -> None:
    """Tell the trace what tensors are for; none of them is held longer than it is told of."""
    for role in roles:
        trace.mark(role.tensor, role.category, on_host=role.on_host)


class _GradientArrives:
    """Called with a parameter's gradient before it is stored or added."""

    def __init__(self, trace: AllocationTrace, parameter: torch.nn.Parameter) -> None:
        self._trace = trace
        self._parameter = parameter

    def __call__(self, gradient: torch.Tensor) -> None:
        self._trace.mark(gradient, "gradients", certainty=BY_USE)
        _tell_weight(self._trace, self._parameter)


def _tell_weight(trace: AllocationTrace, parameter: torch.nn.Parameter) -> None:
    # Only a sharded weight comes and goes; what it is then made of belongs to all ranks.
    if getattr(parameter, "ds_tensor", None) is not None:
        trace.mark(parameter.data, "gathered", certainty=BY_USE)
