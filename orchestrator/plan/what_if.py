"""A job on machines that are not there: other workers, another device. Pure."""

import math
from dataclasses import replace
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.plan.batch import BatchError, resolve_batch
from orchestrator.plan.resources import Machine
from orchestrator.spec.grid import with_changes
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import JobFile

ANY_MACHINE = Machine(n_cpus=math.inf, n_gpus=math.inf, name="an imagined machine")
ANY_CPU_MACHINE = Machine(n_cpus=math.inf, n_gpus=0, name="an imagined machine")


def imagined(
    job: JobFile, *, workers: int | None = None, device: str | None = None
) -> tuple[JobFile, tuple[str, ...]]:
    """Put a job on other machines.

    The global batch stays as it is where it can be divided; else it grows with the workers.

    Args:
        job: as it was read.
        workers: ranks, at least 1; `None` leaves them.
        device: `cpu` or `cuda`; `None` leaves it.

    Returns:
        The job, and what was changed in it beside what was asked for.

    Raises:
        SpecError: it has no batch to keep.
    """
    changes: dict[str, Any] = {}
    if workers is not None:
        changes["resources.workers"] = workers
    if device is not None:
        changes["resources.device"] = device
    notes: tuple[str, ...] = ()
    if workers is not None:
        try:
            batch = resolve_batch(job.spec.training, workers=workers)
        except BatchError:
            grown, notes = _grown(job, workers=workers)
            changes |= grown
        else:
            if job.spec.training.global_batch_size is None:
                notes = (f"the global batch is {batch.global_batch_size}: the job gives none",)
    changed = with_changes(job.spec, changes)
    if not isinstance(changed, JobSpec):
        raise SpecError([job.problem(finding.key, finding.message) for finding in changed])
    return replace(job, spec=changed), notes


def _grown(job: JobFile, *, workers: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        before = resolve_batch(job.spec.training, workers=job.spec.resources.workers)
    except BatchError as err:
        raise SpecError([job.problem(err.key, err.message)]) from err
    total = before.micro_batch_size * before.accumulation_steps * workers
    changes = {
        "training.global_batch_size": total,
        "training.micro_batch_size": before.micro_batch_size,
        "training.gradient_accumulation_steps": before.accumulation_steps,
    }
    note = (
        f"the global batch is {total} instead of {before.global_batch_size}: "
        f"{before.micro_batch_size} micro x {before.accumulation_steps} accumulation x "
        f"{workers} workers"
    )
    return changes, (note,)
