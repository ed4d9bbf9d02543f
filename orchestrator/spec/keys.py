"""Which keys a job can have: the section at a dotted key, and the key that was probably meant.

Pure; read off the sections themselves.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from orchestrator.spec.base import Section
from orchestrator.spec.data import DataSection, data_kind
from orchestrator.spec.finding import closest, dotted_key
from orchestrator.spec.job import JobSpec
from orchestrator.spec.model import ModelSection, model_kind

Path = tuple[str | int, ...]

_OTHER_NAMES = {
    "batch_size": "training.global_batch_size",
    "train_batch_size": "training.global_batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "learning_rate": "training.optimizer.lr",
    "max_steps": "training.steps",
    "num_epochs": "training.epochs",
    "num_workers": "resources.workers",
    "num_gpus": "resources.workers",
    "world_size": "resources.workers",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "zero_optimization": "zero",
}
"""What others call it (DeepSpeed, transformers, Ray) -> our key."""


def _kinds(tagged_union: Any) -> dict[str, type[Section]]:
    members = (get_args(member) for member in get_args(get_args(tagged_union)[0]))
    return {tag.tag: cls for cls, tag in members}


MODEL_KINDS = _kinds(ModelSection)
DATA_KINDS = _kinds(DataSection)
_TAGGED: dict[str, tuple[Callable[[Any], str | None], dict[str, type[Section]]]] = {
    "model": (model_kind, MODEL_KINDS),
    "data": (data_kind, DATA_KINDS),
}


def section_at(path: Sequence[str | int], values: Any) -> type[Section] | None:
    """Find the section that stands at a path of a job's values.

    Args:
        path: keys from the top; empty for the job itself.
        values: the job, unchecked; tells which model and which data it has.

    Returns:
        None where there is no section, or an unknown model or data.
    """
    cls: type[Section] | None = JobSpec
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
        cls = _child(cls, part, values) if cls and isinstance(part, str) else None
    return cls


def split_key(key: str) -> tuple[str, ...]:
    """Take a dotted key apart; below `compare.axes` the rest is one key."""
    parts = tuple(key.split("."))
    if parts[:2] == ("compare", "axes") and len(parts) > 2:
        return (*parts[:2], ".".join(parts[2:]))
    return parts


def with_value(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Copy values with one key set; mappings on the way that are missing or null are made.

    Raises:
        ValueError: something on the way is no mapping; the message names it.
    """
    copy = dict(values)
    if len(path) == 1:
        return copy | {path[0]: value}
    inner = copy.get(path[0])
    if inner is None:
        inner = {}
    if not isinstance(inner, Mapping):
        raise ValueError(path[0])
    try:
        copy[path[0]] = with_value(inner, path[1:], value)
    except ValueError as err:
        raise ValueError(f"{path[0]}.{err}") from err
    return copy


def meant_key(path: Path, values: Any) -> str | None:
    """Find the dotted key that an unknown key was probably meant to be, if any is close."""
    *parents, name = path
    if not isinstance(name, str):
        return None
    section = section_at(parents, values)
    if section is None:
        return None
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    everywhere = tuple(_all_keys(JobSpec, (), values))
    homes = [key for key in everywhere if key[-1] == name]
    if homes:
        return dotted_key(homes[0])
    found = closest(name, tuple(section.model_fields))
    if found:
        return dotted_key((*parents, found))
    by_name = {key[-1]: key for key in reversed(everywhere)}
    elsewhere = closest(name, tuple(by_name), cutoff=0.75)
    return dotted_key(by_name[elsewhere]) if elsewhere else None


def explain_unknown(path: Path, values: Any) -> str:
    """Say that a key is unknown and what to write instead."""
    *parents, name = path
    parent, meant = dotted_key(parents), meant_key(path, values)
    if meant is not None:
        home, _, meant_name = meant.rpartition(".")
        if home == parent:
            return f"unknown key; did you mean {meant_name!r}?"
        if meant_name == name:
            return f"unknown key; it belongs {f'under {home}:' if home else 'at the top level'}"
        return f"unknown key; did you mean {meant}?"
    if isinstance(name, str) and name.count(".") and not parents:
        return "unknown key; write it nested, such as zero: {stage: 2}"
    section = section_at(parents, values)
    known = ", ".join(section.model_fields) if section else "none"
    return f"unknown key; known here: {known}"


def _child(cls: type[Section], name: str, value: Any) -> type[Section] | None:
    if cls is JobSpec and name in _TAGGED:
        kind_of, kinds = _TAGGED[name]
        kind = kind_of(value)
        return kinds[kind] if kind else None
    field = cls.model_fields.get(name)
    if field is None:
        return None
    for annotation in (field.annotation, *get_args(field.annotation)):
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return annotation
    return None


def _all_keys(cls: type[Section], path: tuple[str, ...], values: Any) -> Iterator[tuple[str, ...]]:
    for name in cls.model_fields:
        yield (*path, name)
        value = values.get(name) if isinstance(values, dict) else None
        child = _child(cls, name, value)
        if child is not None:
            yield from _all_keys(child, (*path, name), value)
