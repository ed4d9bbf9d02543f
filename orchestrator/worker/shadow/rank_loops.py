"""Loops over ranks, made short: a view of one rank's part serves for all parts of its size.

ZeRO-3 cuts every parameter into a part a rank, in Python, each time it gathers or reduces it. On
512 ranks that is half a million views a step, and all but the last few are alike: views of one
storage, of one length. Without values their place does not matter, and the storage counts once
either way.

Source: deepspeed 0.19.8, runtime/zero/partition_parameters.py (`AllGatherCoalescedHandle.wait`,
`_all_gather_dtype`) and runtime/comm/coalesced_collectives.py (`reduce_scatter_coalesced`).
"""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

_FEW = 8
"""A concatenation of fewer is left to torch."""


@contextmanager
def short_rank_loops() -> Iterator[None]:
    """Share equal views of flat fake tensors inside, where no graph is recorded."""
    views = _Views()
    own_cat, own_chunk = torch.cat, torch.chunk

    def narrow(tensor: Any, dim: int, start: int, length: int) -> Any:
        if _is_flat(tensor):
            return views.of(tensor, int(length))
        return torch.Tensor.narrow(tensor, dim, start, length)

    def getitem(tensor: Any, index: Any) -> Any:
        if isinstance(index, slice) and index.step is None and _is_flat(tensor):
            start, stop, _ = index.indices(tensor.shape[0])
            return views.of(tensor, max(0, stop - start))
        return torch.Tensor.__getitem__(tensor, index)

    def cat(tensors: Sequence[Any], dim: int = 0, *, out: Any = None) -> Any:
        many = isinstance(tensors, list) and len(tensors) >= _FEW and out is None
        if many and all(map(_is_flat, set(tensors))):
            n_elements = sum(tensor.shape[0] for tensor in tensors)
            return torch.empty(n_elements, dtype=tensors[0].dtype, device=tensors[0].device)
        return own_cat(tensors, dim) if out is None else own_cat(tensors, dim, out=out)

    def chunk(tensor: Any, chunks: int, dim: int = 0) -> Any:
        if chunks >= _FEW and _is_flat(tensor) and tensor.shape[0] % chunks == 0:
            return (views.of(tensor, tensor.shape[0] // chunks),) * chunks
        return own_chunk(tensor, chunks, dim)

    FakeTensor.narrow, FakeTensor.__getitem__ = narrow, getitem
    torch.cat, torch.chunk = cat, chunk
    try:
        yield
    finally:
        del FakeTensor.narrow, FakeTensor.__getitem__
        torch.cat, torch.chunk = own_cat, own_chunk


def _is_flat(tensor: Any) -> bool:
    return isinstance(tensor, FakeTensor) and tensor.dim() == 1 and not torch.is_grad_enabled()


class _Views:
    """The views that somebody still holds, by their base and length."""

    def __init__(self) -> None:
        self._known: weakref.WeakValueDictionary[tuple[int, int], Any] = (
            weakref.WeakValueDictionary()
        )

    def of(self, base: Any, length: int) -> Any:
        key = (int(base.untyped_storage()._cdata), length)
        view = self._known.get(key)
        if view is None or view.dtype != base.dtype or not _is_view_of(view, key):
            view = torch.Tensor.narrow(base, 0, 0, length)
            self._known[key] = view
        return view


def _is_view_of(view: Any, key: tuple[int, int]) -> bool:
    """Whether it is still what it was: `.data` of a tensor can be set to another storage."""
    return view.shape == key[1:] and int(view.untyped_storage()._cdata) == key[0]
