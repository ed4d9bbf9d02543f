"""What a rank reads: two sets of samples that hand out batches by index.

Built-in sources hold whole tensors and index them; a user's dataset is read item by item and
stacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from orchestrator.errors import UsageError
from orchestrator.spec.factory import describe_error

Batch = dict[str, torch.Tensor]
Indices = Sequence[int] | np.ndarray[Any, Any]


class Samples(Protocol):
    """A finite set of samples."""

    def __len__(self) -> int:
        """How many samples there are."""

    def batch(self, indices: Indices) -> Batch:
        """Samples by number, stacked along a new first axis of every tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Datasets:
    """What a job trains on and what it is evaluated on."""

    train: Samples
    eval: Samples


class TensorTable:
    """Samples that are rows of tensors."""

    def __init__(self, columns: Mapping[str, torch.Tensor]) -> None:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of one length are needed, these have {sorted(lengths)}")
        self._columns = dict(columns)
        self._n_samples = lengths.pop()

    def __len__(self) -> int:
        return self._n_samples

    def batch(self, indices: Indices) -> Batch:
        """Rows by number."""
        rows = as_rows(indices)
        return {key: column.index_select(0, rows) for key, column in self._columns.items()}


class TokenTable:
    """Sequences of tokens, kept in a small integer type; labels are the tokens themselves."""

    def __init__(self, tokens_NT: torch.Tensor) -> None:
        self._tokens_NT = tokens_NT

    def __len__(self) -> int:
        return len(self._tokens_NT)

    def batch(self, indices: Indices) -> Batch:
        """Sequences by number, as int64. N = sequences, T = tokens of one."""
        tokens = self._tokens_NT.index_select(0, as_rows(indices)).long()
        return {"input_ids": tokens, "labels": tokens}


class UserSamples:
    """A user's map-style dataset, its items stacked."""

    def __init__(self, dataset: Any, *, name: str) -> None:
        """Wrap a dataset.

        Args:
            dataset: Has `__len__` and `__getitem__`; its items are dicts of tensors, arrays or
                numbers.
            name: What messages call it.
        """
        self._dataset = dataset
        self._name = name

    def __len__(self) -> int:
        return len(self._dataset)

    def batch(self, indices: Indices) -> Batch:
        """Items by number, stacked.

        Raises:
            UsageError: An item cannot be read, is no dict of tensors, or differs in keys or shapes
                from the first one of the batch.
        """
        numbers = [int(number) for number in indices]
        items = [self._item(number) for number in numbers]
        first = items[0]
        for number, item in zip(numbers, items, strict=True):
            if item.keys() != first.keys():
                raise UsageError(
                    f"{self._name}: sample {number} has keys {sorted(item)}, sample "
                    f"{numbers[0]} has {sorted(first)}; give every sample the same keys"
                )
            for key, value in item.items():
                if value.shape != first[key].shape:
                    raise UsageError(
                        f"{self._name}: {key!r} has shape {list(value.shape)} in sample {number} "
                        f"and {list(first[key].shape)} in sample {numbers[0]}; "
                        "pad or crop to one shape"
                    )
        return {key: torch.stack([item[key] for item in items]) for key in first}

    def _item(self, number: int) -> Batch:
        try:
            item = self._dataset[number]
        except Exception as err:
            raise UsageError(
                f"{self._name}: reading sample {number} raised {describe_error(err)}"
            ) from err
        if not isinstance(item, Mapping) or not item:
            raise UsageError(
                f"{self._name}: sample {number} is a {type(item).__name__}; return a dict of "
                "tensors, such as {'pixel_values': ..., 'labels': ...}"
            )
        return {str(key): self._tensor(value, number, str(key)) for key, value in item.items()}

    def _tensor(self, value: Any, number: int, key: str) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value
        if isinstance(value, bool | int | float | np.ndarray | np.generic):
            try:
                return torch.as_tensor(value)
            except TypeError:
                pass
        raise UsageError(
            f"{self._name}: {key!r} of sample {number} is a {type(value).__name__}; "
            "make it a tensor"
        )


def as_rows(indices: Indices) -> torch.Tensor:
    """Sample numbers as the tensor that torch indexes with."""
    return torch.from_numpy(np.array(indices, dtype=np.int64))
