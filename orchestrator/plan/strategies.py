"""The strategies worth thinking of for a job: what each changes in it. Pure.

Stage x offload of optimizer and parameters x recomputation x micro-batch, at an equal global batch,
so that every one computes the same steps.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from orchestrator.plan.batch import Batch
from orchestrator.spec.grid import Changes, with_changes
from orchestrator.spec.job import JobSpec
from orchestrator.spec.rules import contradictions

_OFFLOADS = {
    0: (("none", "none"),),
    1: (("none", "none"), ("cpu", "none")),
    2: (("none", "none"), ("cpu", "none")),
    3: (("none", "none"), ("cpu", "none"), ("none", "cpu"), ("cpu", "cpu")),
}
"""Stage -> where optimizer state and parameters can lie."""
_FACTORS = (1, 2, 4)
"""How much smaller or larger a micro-batch may be than the job's."""
# What a change is thought to cost in speed, in no unit: only the order counts.
_HALF_BATCH, _DOUBLE_BATCH, _RECOMPUTE = 1.0, 0.5, 3.0
_STAGE_PRICE = {0: 0.0, 1: 0.5, 2: 1.0, 3: 2.5}
_OFFLOAD_PRICE = {"none": 0.0, "cpu": 5.0, "nvme": 9.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One strategy."""

    spec: JobSpec
    overrides: tuple[str, ...]
    """What it changes, as `--set` takes it; empty for the job as it stands."""
    n_changes: int
    price: float
    """What it is thought to cost in speed against the job as it stands; less may be faster."""


def candidates(spec: JobSpec, batch: Batch) -> list[Candidate]:
    """List the strategies for a job, the job as it stands among them.

    Args:
        spec: the job, every size filled in.
        batch: its resolved batch.
    """
    found = {}
    for settings in _settings(spec, batch):
        changes = {key: value for key, value in settings.items() if value != _now(spec, key, batch)}
        if "training.micro_batch_size" in changes:
            # The other two follow from the workers and the global batch.
            changes["training.global_batch_size"] = batch.global_batch_size
            changes["training.gradient_accumulation_steps"] = None
        changed = with_changes(spec, changes)
        if isinstance(changed, JobSpec) and not contradictions(changed):
            written = tuple(_written(key, value) for key, value in _told(spec, changes).items())
            found[written] = Candidate(
                spec=changed,
                overrides=written,
                n_changes=len(written),
                price=_price(changed, spec, settings=settings, batch=batch),
            )
    return list(found.values())


def _settings(spec: JobSpec, batch: Batch) -> Iterator[Changes]:
    per_rank = batch.global_batch_size // batch.workers
    micro = batch.micro_batch_size
    sizes = {micro * factor for factor in _FACTORS} | {micro // factor for factor in _FACTORS}
    fitting = sorted(size for size in sizes if size > 0 and per_rank % size == 0)
    stages = (0,) if spec.training.engine == "torch" else (0, 1, 2, 3)
    path = spec.zero.nvme_path
    own = (spec.zero.offload_optimizer, spec.zero.offload_params)
    for stage, recomputed, size in product(stages, (False, True), fitting):
        nvme = (("nvme", "cpu"),) if path is not None and stage == 3 else ()
        now = (own,) if stage == spec.zero.stage else ()
        for optimizer, params in (*_OFFLOADS[stage], *nvme, *now):
            # A path that is no longer used would be refused.
            idle = "nvme" in own and "nvme" not in (optimizer, params)
            yield {
                "zero.stage": stage,
                "zero.offload_optimizer": optimizer,
                "zero.offload_params": params,
                "zero.nvme_path": None if idle else path,
                "training.activation_checkpointing": recomputed,
                "training.micro_batch_size": size,
            }


def _now(spec: JobSpec, key: str, batch: Batch) -> object:
    if key == "training.micro_batch_size":
        return batch.micro_batch_size
    section, name = key.split(".")
    return getattr(getattr(spec, section), name)


def _told(spec: JobSpec, changes: Changes) -> Changes:
    """The changes that a person has to write: not those that are so already."""
    training = spec.training
    same = {
        "training.global_batch_size": training.global_batch_size,
        "training.gradient_accumulation_steps": training.gradient_accumulation_steps,
    }
    return {k: v for k, v in changes.items() if k not in same or v != same[k]}


def _written(key: str, value: object) -> str:
    # As YAML, of which JSON is a part.
    return f"{key}={value}" if isinstance(value, str) else f"{key}={json.dumps(value)}"


def _price(changed: JobSpec, before: JobSpec, *, settings: Changes, batch: Batch) -> float:
    def of(spec: JobSpec) -> float:
        zero = spec.zero
        return (
            _STAGE_PRICE[zero.stage]
            + _OFFLOAD_PRICE[zero.offload_optimizer]
            + 1.5 * _OFFLOAD_PRICE[zero.offload_params]
            + _RECOMPUTE * spec.training.activation_checkpointing
        )

    size = int(settings["training.micro_batch_size"])
    smaller = max(0, (batch.micro_batch_size // size).bit_length() - 1)
    larger = max(0, (size // batch.micro_batch_size).bit_length() - 1)
    return of(changed) - of(before) + _HALF_BATCH * smaller - _DOUBLE_BATCH * larger
