"""Exact tensor bytes on a CPU: every allocation of a window, by storage.

A CPU has no allocator that counts, so a dispatch mode sees the results of each operation and a
finaliser sees each storage go. It costs some percent of a step and is on only while the engine is
built and on marked probe steps. It does not see what C++ allocates for itself: gloo's copies,
oneDNN's scratch memory, the inside of DeepSpeed's CPU Adam.
"""

import gc
import weakref
from collections.abc import Iterable, Mapping, Set
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

StorageKey = int


def storage_key(tensor: torch.Tensor) -> StorageKey:
    """Identify the memory behind a tensor; views of one storage share it."""
    return int(tensor.untyped_storage()._cdata)


def live_storages() -> dict[StorageKey, torch.Tensor]:
    """One tensor of every storage that Python can reach now, gradients included."""
    found: dict[StorageKey, torch.Tensor] = {}
    objects = gc.get_objects()
    # A million objects have a few thousand types.
    tensors = {kind for kind in set(map(type, objects)) if issubclass(kind, torch.Tensor)}
    for candidate in objects:
        if type(candidate) not in tensors:
            continue
        grad = candidate.grad if candidate.is_leaf else None
        for tensor in (candidate, grad):
            if tensor is not None and tensor.layout == torch.strided:
                found.setdefault(storage_key(tensor), tensor)
    return found


def live_keys() -> set[StorageKey]:
    """The storages that are there now; one that goes leaves the set, since its key comes again."""
    keys: set[StorageKey] = set()
    for key, tensor in live_storages().items():
        keys.add(key)
        weakref.finalize(tensor.untyped_storage(), keys.discard, key).atexit = False
    return keys


class AllocationTrace(TorchDispatchMode):  # type: ignore[misc]
    """Running sum of tensor bytes inside a `with` block, with a peak for each phase.

    Args:
        ignored: storages that are there before and do not belong to the device, such as the data
            (`live_keys`); not copied.
        resting: tensors that are there before and do belong to it (`live_storages`).
    """

    def __init__(
        self, *, ignored: Set[StorageKey] = frozenset(), resting: Iterable[torch.Tensor] = ()
    ) -> None:
        super().__init__()
        self._ignored = ignored
        self._phase: str | None = None
        # An address is used again once its storage is gone; the serial number never is.
        self._live: dict[StorageKey, tuple[int, int]] = {}
        self._n_seen = 0
        self._events: list[tuple[str | None, int, int]] = []
        self._active = False
        for tensor in resting:
            self._see(tensor)

    def __enter__(self) -> "AllocationTrace":
        self._active = True
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._active = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and look at what it returned."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        return result

    def enter_phase(self, phase: str) -> None:
        """From here on, bytes count for this phase."""
        self._phase = phase
        self._events.append((phase, 0, 0))

    def peaks(self, *, host: Iterable[torch.Tensor] = ()) -> tuple[dict[str, int], int]:
        """Peak bytes of each phase without what rests on the host, and the host's own peak.

        Args:
            host: tensors that the strategy keeps in host memory; on a CPU run they lie in the same
                memory and are told apart by their role.
        """
        keys = {storage_key(tensor) for tensor in host}
        on_host = {self._live[key][0] for key in keys if key in self._live}
        device_bytes = host_bytes = host_peak = 0
        peaks: dict[str, int] = {}
        for phase, serial, change in self._events:
            if serial in on_host:
                host_bytes += change
                host_peak = max(host_peak, host_bytes)
            else:
                device_bytes += change
            if phase is not None:
                peaks[phase] = max(peaks.get(phase, 0), device_bytes)
        return peaks, host_peak

    def _see(self, tensor: torch.Tensor) -> None:
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key, size = int(storage._cdata), storage.nbytes()
        if key in self._ignored:
            return
        serial, known = self._live.get(key, (0, 0))
        if serial and known == size:
            return
        if not serial:
            self._n_seen += 1
            serial = self._n_seen
            weakref.finalize(storage, self._forget, key, serial).atexit = False
        self._live[key] = (serial, size)
        self._events.append((self._phase, serial, size - known))

    def _forget(self, key: StorageKey, serial: int) -> None:
        known = self._live.get(key)
        if known is None or known[0] != serial:
            return
        del self._live[key]
        if self._active:
            self._events.append((self._phase, serial, -known[1]))
