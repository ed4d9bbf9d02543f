"""The moments at which an engine acts on a model: modules begin and end, gradients arrive.

They are the ones that DeepSpeed's ZeRO-3 gathers and gives back weights at, found in the same way:
hooks around forward, and identities in the graph around each module's inputs and outputs.

Source: deepspeed 0.19.8, runtime/zero/parameter_offload.py, `_register_deepspeed_module`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from orchestrator.forecast.profile import Moment, MomentKind
from orchestrator.worker.probes.live_bytes import Held, LiveBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A moment as it was noted, before its peak is known."""

    kind: MomentKind
    subject: int
    backward: bool
    held: Held
    here: int
    """The point of the window of live bytes."""


def moments_of(edges: Sequence[Edge], live: LiveBytes) -> Iterator[Moment]:
    """Complete noted moments by what was alive between them.

    To be asked for outside of fake tensors.
    """
    since, before = 0, Held(n_bytes=0, temporary_bytes=0)
    for edge in edges:
        most = max(live.most(since, edge.here), before, edge.held, key=lambda held: held.n_bytes)
        since, before = edge.here, edge.held
        yield Moment(
            kind=edge.kind,
            subject=edge.subject,
            backward=edge.backward,
            held_bytes=edge.held.n_bytes,
            held_temporary_bytes=edge.held.temporary_bytes,
            peak_bytes=most.n_bytes,
            peak_temporary_bytes=most.temporary_bytes,
        )


@contextmanager
def watched_edges(model: torch.nn.Module, live: LiveBytes) -> Iterator[list[Edge]]:
    """Note the moments of what runs inside.

    A gradient that arrives counts no longer: it is the parameter's.

    Args:
        model: its hooks are as before afterwards.
        live: what is alive; must be on.
    """
    edges: list[Edge] = []
    handles: list[Any] = []

    def note(kind: MomentKind, subject: int) -> None:
        edge = Edge(
            kind=kind,
            subject=subject,
            backward=live.backward,
            held=live.now(),
            here=live.here(),
        )
        edges.append(edge)

    def arrives(number: int, parameter: torch.nn.Parameter) -> None:
        live.leave_out(parameter.grad)
        note("gradient", number)

    for number, module in enumerate(model.modules()):
        handles += _ModuleEdges(note, number).on(module)
    for number, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            hook = partial(arrives, number)
            handles.append(parameter.register_post_accumulate_grad_hook(hook))
    try:
        yield edges
    finally:
        for handle in handles:
            handle.remove()


class _ModuleEdges:
    """Notes one module's beginnings and ends."""

    def __init__(self, note: Callable[[MomentKind, int], None], number: int) -> None:
        self._note = note
        self._number = number
        self._n_outputs = 0
        """Outputs whose backward will begin; those that are computed again come on top."""
        self._n_inputs = 0
        """Inputs whose gradients are still to come."""

    def on(self, module: torch.nn.Module) -> Iterator[Any]:
        """Hook the module and give the handles."""
        yield module.register_forward_pre_hook(self._before_forward)
        yield module.register_forward_hook(self._after_forward)

    def _before_forward(self, _module: object, inputs: Any) -> Any:
        self._note("enter", self._number)
        self._n_inputs = 0
        return _through(self._input, inputs)

    def _after_forward(self, _module: object, _inputs: object, output: Any) -> Any:
        self._note("leave", self._number)
        return _through(self._output, output)

    def _input(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.requires_grad:
            self._n_inputs += 1
        return _Edge.apply(tensor, self._input_is_done)

    def _output(self, tensor: torch.Tensor) -> torch.Tensor:
        self._n_outputs += 1
        return _Edge.apply(tensor, self._output_begins)

    def _output_begins(self) -> None:
        if self._n_outputs > 0:
            self._n_outputs -= 1
            self._note("enter_backward", self._number)

    def _input_is_done(self) -> None:
        self._n_inputs -= 1
        if self._n_inputs == 0:
            self._note("leave_backward", self._number)


class _Edge(torch.autograd.Function):  # type: ignore[misc]
    """An identity that tells when backward passes through it."""

    @staticmethod
    def forward(tensor: torch.Tensor, _passes: Callable[[], None]) -> torch.Tensor:
        return tensor.detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: torch.Tensor) -> None:
        del output
        ctx.passes = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        ctx.passes()
        return gradient, None


def _through(wrap: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """Wrap every tensor of nested lists, tuples and dicts; what else there is stays as it is."""
    if isinstance(value, torch.Tensor):
        return wrap(value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _through(wrap, value[key])
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_through(wrap, item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(_through(wrap, item) for item in value)
    return value
