"""How many bytes of tensors are alive, operation by operation: a small counter for fake tensors.

A dispatch mode sees the results of each operation and a finaliser sees each storage go; fake
storages have sizes and no memory.
"""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orchestrator.worker.probes.storages import StorageKey, storage_key
from orchestrator.worker.shadow.scratch import Attempt, Scratch


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is alive at one point."""

    n_bytes: int
    temporary_bytes: int
    """The part of it that is no activation: what backward makes and gives back, and what an
    operation takes for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """After an operation."""

    held: Held
    new_bytes: int
    """Of its results."""
    attempt: Attempt | None


class LiveBytes(TorchDispatchMode):  # type: ignore[misc]
    """Counts storages made inside a `with` block while they live.

    Args:
        ignored: tensors that are there before and do not count, such as weights.
        scratch: where to look up what operations take for themselves while they run; `None` to
            leave that out.
    """

    def __init__(
        self, *, ignored: Iterable[torch.Tensor] = (), scratch: Scratch | None = None
    ) -> None:
        super().__init__()
        self.backward = False
        """Whether backward has begun; what it makes without gradients it gives back."""
        self._scratch = scratch
        self._ignored = {storage_key(tensor) for tensor in ignored}
        # Key -> bytes, the temporary part of them, and which of all storages it is: a key comes
        # again once its storage is gone.
        self._live: dict[StorageKey, tuple[int, int, int]] = {}
        self._n_seen = 0
        self._n_bytes = self._temporary_bytes = 0
        self._points: list[_Point] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and look at what it returned."""
        kwargs = kwargs or {}
        attempt = None if self._scratch is None else self._scratch.note(func, args, kwargs)
        result = func(*args, **kwargs)
        before = self._n_seen
        new_bytes = sum(
            self._see(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)
        )
        if attempt is not None or self._n_seen > before:
            point = _Point(held=self.now(), new_bytes=new_bytes, attempt=attempt)
            self._points.append(point)
        return result

    def now(self) -> Held:
        """What is alive now."""
        return Held(n_bytes=self._n_bytes, temporary_bytes=self._temporary_bytes)

    def here(self) -> int:
        """This point of the window, for `most`."""
        return len(self._points)

    def most(self, since: int, until: int) -> Held:
        """The most that was alive between two points; nothing, if nothing was made there.

        To be asked for outside of fake tensors.
        """
        found = [self._with_scratch(point) for point in self._points[since:until]]
        nothing = Held(n_bytes=0, temporary_bytes=0)
        return max(found, key=lambda held: held.n_bytes, default=nothing)

    def see(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that no operation made."""
        for tensor in tensors:
            self._see(tensor)

    def leave_out(self, tensor: torch.Tensor) -> None:
        """Count a tensor no longer, though it goes on living."""
        key = storage_key(tensor)
        if key in self._live:
            self._forget(key, self._live[key][2])

    def _with_scratch(self, point: _Point) -> Held:
        if point.attempt is None or self._scratch is None:
            return point.held
        scratch_bytes = max(0, self._scratch.peak_bytes(point.attempt) - point.new_bytes)
        return Held(
            n_bytes=point.held.n_bytes + scratch_bytes,
            temporary_bytes=point.held.temporary_bytes + scratch_bytes,
        )

    def _see(self, tensor: torch.Tensor) -> int:
        """Count a tensor and say how many bytes are new."""
        key = storage_key(tensor)
        if key in self._live or key in self._ignored:
            return 0
        storage = tensor.untyped_storage()
        n_bytes = int(storage.nbytes())
        # A block that is computed again is so with gradients.
        temporary_bytes = n_bytes if self.backward and not torch.is_grad_enabled() else 0
        self._n_seen += 1
        self._live[key] = (n_bytes, temporary_bytes, self._n_seen)
        weakref.finalize(storage, self._forget, key, self._n_seen).atexit = False
        self._n_bytes += n_bytes
        self._temporary_bytes += temporary_bytes
        return n_bytes

    def _forget(self, key: StorageKey, number: int) -> None:
        known = self._live.get(key)
        if known is not None and known[2] == number:
            del self._live[key]
            self._n_bytes -= known[0]
            self._temporary_bytes -= known[1]
