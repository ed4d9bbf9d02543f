"""What ranks tell, as JSON and back. Pure."""

from dataclasses import asdict, fields
from typing import Any, get_args

from orchestrator.measure.sample import (
    CudaMemory,
    GpuState,
    ProbedMemory,
    Record,
    ResidentMemory,
)

_KINDS: dict[str, type[Record]] = {cls.kind: cls for cls in get_args(Record)}
_PARTS = {
    "probed": ProbedMemory,
    "resident": ResidentMemory,
    "cuda": CudaMemory,
    "gpu": GpuState,
}
"""Fields of a sample that are records themselves."""


def to_json(record: Record) -> dict[str, Any]:
    """Turn a record into plain JSON values, with its kind."""
    return {"kind": record.kind, **asdict(record)}


def record_from_json(values: dict[str, Any]) -> Record:
    """Turn `to_json`'s output back into the record.

    Raises:
        ValueError: the kind is unknown or a field is missing.
    """
    cls = _KINDS.get(str(values.get("kind")))
    if cls is None:
        raise ValueError(f"unknown record kind {values.get('kind')!r}")
    missing = [field.name for field in fields(cls) if field.name not in values]
    if missing:
        raise ValueError(f"a {cls.kind} record lacks {', '.join(missing)}")
    taken = {field.name: values[field.name] for field in fields(cls)}
    for name, part in _PARTS.items():
        if taken.get(name) is not None:
            taken[name] = part(**taken[name])
    return cls(**taken)
