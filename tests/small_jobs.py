"""A small job that is right, written to disk with some sections changed, and its plan."""

import json
from pathlib import Path
from typing import Any

from orchestrator.plan.launch_plan import LaunchPlan, make_plan
from orchestrator.plan.resources import Machine
from orchestrator.spec.load import JobFile, load_job

SECTIONS: dict[str, Any] = {
    "name": "small",
    "model": {"family": "mlp"},
    "data": {"source": "digits", "image_size": 8},
    "training": {"steps": 4, "global_batch_size": 16, "micro_batch_size": 4},
    "zero": {"stage": 0},
    "deepspeed": {},
    "resources": {"workers": 2},
}
"""In file order, a line each: `training` stands on line 4, `deepspeed` on line 6."""
MACHINE = Machine(n_cpus=8, n_gpus=0, name="this machine")


def write_job(folder: Path, **changes: Any) -> JobFile:
    """Write and load the job.

    Args:
        folder: where to write `job.yaml`.
        changes: section -> settings laid over it; model and data are replaced.
    """
    sections = dict(SECTIONS)
    for name, change in changes.items():
        merged = name not in ("model", "data") and isinstance(change, dict)
        sections[name] = {**(sections.get(name) or {}), **change} if merged else change
    # JSON is YAML, and keeps a section on one line.
    lines = [f"{name}: {json.dumps(value)}" for name, value in sections.items()]
    path = folder / "job.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_job(path)


def plan_job(
    folder: Path,
    *,
    machine: Machine = MACHINE,
    cpu_adam: bool = True,
    n_params: int | None = None,
    **changes: Any,
) -> LaunchPlan:
    """Plan the changed job, on a machine of 8 cores unless told otherwise."""
    job = write_job(folder, **changes)
    return make_plan(job, machine=machine, cpu_adam=cpu_adam, n_params=n_params)
