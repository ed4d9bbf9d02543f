"""The memory behind tensors: which storages Python can reach now."""

import gc
import weakref

import torch

StorageKey = int


def storage_key(tensor: torch.Tensor) -> StorageKey:
    """Identify the memory behind a tensor; views of one storage share it."""
    return int(tensor.untyped_storage()._cdata)


def live_storages(kind: type[torch.Tensor] = torch.Tensor) -> dict[StorageKey, torch.Tensor]:
    """One tensor of every storage that Python can reach now, gradients included.

    Args:
        kind: only of tensors of this class.
    """
    found: dict[StorageKey, torch.Tensor] = {}
    objects = gc.get_objects()
    # A million objects have a few thousand types.
    types = {one for one in set(map(type, objects)) if issubclass(one, torch.Tensor)}
    for candidate in objects:
        if type(candidate) not in types or not isinstance(candidate, kind):
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
