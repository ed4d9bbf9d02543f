"""What an operation takes for itself on a CPU, found by running it once on real tensors.

A convolution lays its weights out anew, attention keeps partial results: C++ takes that memory and
gives it back before the operation returns, so fake tensors cannot tell it. The operation of a step
is a matter of shapes, so it is run by itself, with tensors of its shapes, under torch's profiler.
"""

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from orchestrator.worker.probes.operation_memory import OperationMemory, operation

_MOST_BYTES = 256 * 2**20
"""Of one operation's tensors; a larger one is not tried."""
_QUIET = ("empty", "detach", "alias", "new_empty", "zeros", "ones", "full", "fill_", "zero_")

Attempt = tuple[Any, ...]
"""An operation and the shapes of what it is given; hashable."""


class Scratch:
    """Operations of a run, and what each takes for itself; tried when that is first asked for."""

    def __init__(self) -> None:
        self.untried_bytes = 0
        """Operands of the largest operation that was too large to be tried."""
        self._waiting: dict[Attempt, None] = {}
        self._peaks: dict[Attempt, int] = {}

    def note(self, func: Any, args: Any, kwargs: Any) -> Attempt | None:
        """Write an operation down, to be tried later; `None` where there is nothing to try.

        Views take nothing, and neither does what only fills memory.
        """
        if func.is_view or func._overloadpacket.__name__.startswith(_QUIET):
            return None
        leaves, spec = tree_flatten((args, kwargs))
        described = tuple(
            _described(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves
        )
        n_bytes = sum(leaf.numel() * leaf.element_size() for leaf in leaves if _is_tensor(leaf))
        if n_bytes > _MOST_BYTES:
            self.untried_bytes = max(self.untried_bytes, n_bytes)
            return None
        attempt = (func, spec, *described)
        try:
            self._waiting.setdefault(attempt)
        except TypeError:
            # It is given something that cannot be looked up.
            return None
        return attempt

    def peak_bytes(self, attempt: Attempt) -> int:
        """The most bytes that were taken while it ran, its results included.

        To be asked for outside of fake tensors.
        """
        if self._waiting:
            new = [one for one in self._waiting if one not in self._peaks]
            self._peaks.update(zip(new, _tried(new), strict=True))
            self._waiting.clear()
        return self._peaks[attempt]


def _tried(attempts: Iterable[Attempt]) -> list[int]:
    watch = OperationMemory()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), watch.watched():
        for func, spec, *leaves in attempts:
            args, kwargs = tree_unflatten([_real(leaf) for leaf in leaves], spec)
            # Values may matter to it, such as the indices of a lookup.
            with contextlib.suppress(RuntimeError, ValueError, IndexError), operation():
                func(*args, **kwargs)
            del args, kwargs
    return watch.peaks()


class _Described(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: str


def _described(tensor: torch.Tensor) -> _Described:
    return _Described(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device.type)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)


def _real(leaf: Any) -> Any:
    if not isinstance(leaf, _Described):
        return leaf
    tensor = torch.empty_strided(leaf.shape, leaf.stride, dtype=leaf.dtype, device=leaf.device)
    return tensor.fill_(1) if leaf.dtype.is_floating_point else tensor.zero_()
