"""Exact tensor bytes: every allocation of a window, by storage, with what it is for.

A dispatch mode sees the results of each operation and a finaliser sees each storage go. It costs
some percent of a step and is on only while the engine is built and on a marked probe step. What an
operation takes for itself while it runs is for `operation_memory`; what C++ takes past torch's
allocator (the inside of DeepSpeed's CPU Adam, gloo's own buffers) nobody sees.

A storage has one category for all its life, whenever that becomes known: by its role in the engine
(`mark`, surest), as an operand of a collective, or by the moment it was made.
"""

import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from orchestrator.worker.probes.operation_memory import operation
from orchestrator.worker.probes.replay import (
    BY_COLLECTIVE,
    BY_ROLE,
    Block,
    Change,
    History,
    Operation,
    TraceResult,
    replay,
)
from orchestrator.worker.probes.storages import StorageKey, storage_key

LET_GO_S = 0.001
"""How long the first operation after a collective waits: gloo's thread lets go of the operands a
moment after the collective is done, and what a step held should not depend on that moment."""


class AllocationTrace(TorchDispatchMode):  # type: ignore[misc]
    """Every storage that comes and goes inside a `with` block.

    Args:
        ignored: storages that are there before and do not belong to the device, such as the data
            (`live_keys`); not copied.
        resting: tensors that are there before and do belong to it (`live_storages`).
        device_type: `cpu` or `cuda`; what lies on the other counts when it has a role on the host.
        settle_s: how long the first operation after a collective waits.
    """

    def __init__(
        self,
        *,
        ignored: Set[StorageKey] = frozenset(),
        resting: Iterable[torch.Tensor] = (),
        device_type: str = "cpu",
        settle_s: float = LET_GO_S,
    ) -> None:
        super().__init__()
        self._settle_s = settle_s
        self._device_type = device_type
        self._ignored = ignored
        self._phase: str | None = None
        self._host_depth = 0
        self._elsewhere_depth = 0
        # An address is used again once its storage is gone; the index of its block never is.
        self._live: dict[StorageKey, tuple[int, int]] = {}
        self._history = History()
        self._lets_go = False
        self._active = False
        self._began_s = time.perf_counter()
        for tensor in resting:
            self._see(tensor, resting=True)

    def __enter__(self) -> "AllocationTrace":
        self._active = True
        self._began_s = time.perf_counter()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._active = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and look at what it returned."""
        if self._lets_go and func.namespace != "c10d":
            self._lets_go = False
            time.sleep(self._settle_s)
        first_change = len(self._history.changes)
        with operation():
            result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
        collective = func.namespace == "c10d"
        if collective:
            self._lets_go = self._device_type == "cpu" and self._settle_s > 0
            self._see_operands(args, category=self._sent_category(func.__name__))
        self._history.operations.append(
            Operation(
                first_change=first_change,
                end_change=len(self._history.changes),
                scratch_category="buffers" if collective else "temporaries",
                on_host=self._host_depth > 0,
            )
        )
        return result

    def enter_phase(self, phase: str) -> None:
        """From here on, bytes count for this phase."""
        self._phase = phase
        self._change(None, 0)

    def mark(
        self,
        tensor: torch.Tensor,
        category: str,
        *,
        on_host: bool = False,
        certainty: int = BY_ROLE,
    ) -> None:
        """Say what a tensor's storage is for; the surest word stands, of equals the last.

        Args:
            tensor: one that is there now; of one that was never seen nothing is noted.
            category: one of the ledger's.
            on_host: the strategy keeps it in host memory. On a CPU run that is the same memory, and
                told apart by role.
            certainty: how this is known.
        """
        index, _ = self._live.get(storage_key(tensor), (-1, 0))
        if index < 0:
            return
        block = self._history.blocks[index]
        if certainty >= block.certainty:
            block.category, block.certainty = category, certainty
            if on_host:
                block.place = "host"
            elif block.place == "host":
                block.place = "device"

    @contextmanager
    def made_on_host(self) -> Iterator[None]:
        """Count what is made inside as the host's: the update of an offloaded optimizer."""
        self._host_depth += 1
        try:
            yield
        finally:
            self._host_depth -= 1

    @contextmanager
    def made_elsewhere(self) -> Iterator[None]:
        """Do not count what is made inside: a fake CPU tensor that a GPU rank makes on the CPU."""
        self._elsewhere_depth += 1
        try:
            yield
        finally:
            self._elsewhere_depth -= 1

    def result(self, *, operation_peaks: Sequence[int] = (), n_moments: int = 0) -> TraceResult:
        """Sum up the window so far; see `replay`."""
        return replay(self._history, operation_peaks=operation_peaks, n_moments=n_moments)

    @property
    def blocks(self) -> Sequence[Block]:
        """Every storage so far, in the order they were seen."""
        return self._history.blocks

    @property
    def changes(self) -> Sequence[Change]:
        """Everything so far that came, grew or went, and where phases began."""
        return self._history.changes

    def live_blocks(self) -> dict[StorageKey, tuple[int, int]]:
        """Storages that are there now -> index of the block, and bytes."""
        return dict(self._live)

    def _made_now(self) -> str:
        """What a storage that is made at this moment is for, as long as nothing else is known."""
        if self._phase == "forward":
            return "activations"
        # Autograd runs without gradients, and a block that is computed again with them.
        recomputed = self._phase == "backward" and torch.is_grad_enabled()
        return "activations" if recomputed else "temporaries"

    def _sent_category(self, collective: str) -> str:
        """What the operands of a collective are for, as long as nothing surer is known."""
        if "gather" in collective:
            return "gathered"
        # While it is built, an engine makes the weights equal on all ranks.
        weights = "broadcast" in collective and self._phase == "init"
        return "params" if weights else "buffers"

    def _see_operands(self, operands: Any, *, category: str) -> None:
        for leaf in tree_leaves(operands):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf)
                self.mark(leaf, category, certainty=BY_COLLECTIVE)

    def _see(self, tensor: torch.Tensor, *, resting: bool = False) -> None:
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key, size = int(storage._cdata), storage.nbytes()
        if key in self._ignored:
            return
        index, known = self._live.get(key, (-1, 0))
        if index >= 0 and known == size:
            return
        if index < 0:
            index = len(self._history.blocks)
            self._history.blocks.append(
                Block(
                    category=self._made_now(),
                    place=self._place_of(tensor),
                    resting=resting,
                    made_in=self._phase,
                    address=storage.data_ptr() if tensor.device.type == "cuda" else None,
                    seen_us=time.time_ns() / 1e3,
                )
            )
            weakref.finalize(storage, self._forget, key, index).atexit = False
        self._live[key] = (index, size)
        self._change(index, size - known)

    def _place_of(self, tensor: torch.Tensor) -> str:
        if tensor.device.type != self._device_type or self._elsewhere_depth:
            return "elsewhere"
        return "host" if self._host_depth else "device"

    def _forget(self, key: StorageKey, index: int) -> None:
        known = self._live.get(key)
        if known is None or known[0] != index:
            return
        del self._live[key]
        if self._active:
            self._history.blocks[index].live = False
            self._change(index, -known[1])

    def _change(self, block: int | None, n_bytes: int) -> None:
        at_s = time.perf_counter() - self._began_s
        self._history.changes.append(
            Change(at_s=at_s, phase=self._phase, block=block, n_bytes=n_bytes)
        )
