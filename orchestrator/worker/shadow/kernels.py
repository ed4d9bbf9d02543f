"""DeepSpeed's compiled kernels, stood in for by functions that compute nothing.

Its own Python classes around them run unchanged: they make the optimizer's state and the buffers.
The kernels themselves work in place, so that nothing is missing but what C++ takes past torch's
allocator, which no ledger has.

Source: deepspeed 0.19.8, ops/adam/, ops/lion/, ops/op_builder/, runtime/swap_tensor/.
"""

import importlib
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from orchestrator.worker.probes.storages import StorageKey, storage_key

_BUILDERS = (
    "CPUAdamBuilder",
    "CPULionBuilder",
    "FusedAdamBuilder",
    "FusedLionBuilder",
    "AsyncIOBuilder",
    "PinMemoryBuilder",
)


class FakeFiles:
    """What `aio_handle` does with a disk, as far as memory is concerned: nothing.

    Every request is done at once; files are kept by name and size only, so that what a rank would
    have written can be told.
    """

    sizes: dict[str, int] = {}  # noqa: RUF012
    """File -> bytes; one for the whole process, as a disk is."""
    _locked: set[StorageKey] = set()  # noqa: RUF012
    """Page-locked memory, likewise; what goes leaves the set, since its key comes again."""

    def __init__(self, *_settings: Any, **_named: Any) -> None:
        self._n_waiting = 0

    def _write(self, tensor: torch.Tensor, path: str, *_more: Any) -> int:
        n_bytes = tensor.numel() * tensor.element_size()
        self.sizes[str(path)] = max(n_bytes, self.sizes.get(str(path), 0))
        self._n_waiting += 1
        return 0

    def _read(self, *_more: Any) -> int:
        self._n_waiting += 1
        return 0

    async_pwrite = sync_pwrite = pwrite = write = _write
    async_pread = sync_pread = pread = read = _read

    def wait(self) -> int:
        """Finish every request; says how many there were."""
        done, self._n_waiting = self._n_waiting, 0
        return done

    def get_block_size(self) -> int:
        """DeepSpeed aligns its buffers to it."""
        return 1048576

    def get_queue_depth(self) -> int:
        """Requests in flight."""
        return 8

    def get_alignment(self) -> int:
        """What an O_DIRECT write must be a multiple of, in bytes."""
        return 512

    def get_intra_op_parallelism(self) -> int:
        """Threads of one request."""
        return 1

    def new_cpu_locked_tensor(self, n_elements: int, example: torch.Tensor) -> torch.Tensor:
        """Make a buffer of page-locked memory."""
        locked = torch.empty(n_elements, dtype=example.dtype)
        key = storage_key(locked)
        self._locked.add(key)
        weakref.finalize(locked.untyped_storage(), self._locked.discard, key).atexit = False
        return locked

    def free_cpu_locked_tensor(self, _tensor: torch.Tensor) -> bool:
        """Give one back."""
        return True

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Whether files can be read into it and written from it."""
        return storage_key(tensor) in self._locked


class _Kernels:
    """A compiled module in which every function takes anything and does nothing."""

    aio_handle = FakeFiles
    pin_handle = FakeFiles

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments, **_settings: None


@contextmanager
def compiled_kernels() -> Iterator[None]:
    """Hand out stand-ins for compiled kernels inside."""
    builders = importlib.import_module("deepspeed.ops.op_builder")
    with ExitStack() as undo:
        for name in _BUILDERS:
            builder = getattr(builders, name, None)
            if builder is None:
                continue
            for method, value in (
                ("load", lambda _self, *_a, **_k: _Kernels()),
                ("is_compatible", lambda _self, *_a, **_k: True),
            ):
                own = vars(builder).get(method)
                setattr(builder, method, value)
                undo.callback(_put_back, builder, method, own)
        yield


def _put_back(owner: Any, name: str, own: Any) -> None:
    if own is None:
        delattr(owner, name)
    else:
        setattr(owner, name, own)
