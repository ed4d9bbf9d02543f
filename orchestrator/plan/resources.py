"""What a run asks of machines: ranks, device, cores. Pure; what there is comes in as `Machine`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfeasibleError
from orchestrator.spec.load import JobFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a cluster."""

    n_cpus: float
    n_gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine, or the whole cluster, offers."""

    n_cpus: float
    n_gpus: float
    name: str
    """How to call it in an error: `this machine`, `the cluster at ...`."""
    nodes: tuple[Node, ...] = ()
    """Of a cluster: a worker must find all it takes on one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one run takes, with the device decided."""

    workers: int
    device: str
    """`cpu` or `cuda`."""
    cpus_per_worker: float
    gpus_per_worker: float
    placement: str = "pack"
    """Over the nodes of a cluster: `pack` or `spread`."""


def resolve_resources(job: JobFile, *, machine: Machine) -> Resources:
    """Decide the device and check that every worker finds its place at once.

    Raises:
        InfeasibleError: there are not enough cores or GPUs; it says where that is asked for, and
            how many there are.
    """
    section = job.spec.resources
    device = section.device
    if device == "auto":
        device = "cuda" if machine.n_gpus >= 1 else "cpu"
    if device == "cuda" and machine.n_gpus < 1:
        raise _infeasible(
            job,
            "resources.device",
            f"cuda is asked for and {machine.name} has no GPU; "
            "set resources.device: cpu, or auto to use what there is",
        )
    if device == "cuda" and section.workers > machine.n_gpus:
        raise _infeasible(
            job,
            "resources.workers",
            f"{section.workers} workers need {section.workers} GPUs and "
            f"{machine.name} has {machine.n_gpus:g}; lower resources.workers or add GPUs",
        )
    cores = section.workers * section.cpus_per_worker
    if cores > machine.n_cpus:
        raise _infeasible(
            job,
            "resources.workers",
            f"{section.workers} workers x {section.cpus_per_worker:g} CPUs need "
            f"{cores:g} CPUs and {machine.name} has {machine.n_cpus:g}; "
            "lower resources.workers or resources.cpus_per_worker (0.5 lets two share a core)",
        )
    resources = Resources(
        workers=section.workers,
        device=device,
        cpus_per_worker=section.cpus_per_worker,
        gpus_per_worker=1 if device == "cuda" else 0,
        placement=section.placement,
    )
    n_whole = n_places(machine.nodes, resources)
    if machine.nodes and n_whole < section.workers:
        each = f"{section.cpus_per_worker:g} CPUs" + (" and 1 GPU" if device == "cuda" else "")
        n_nodes = f"{len(machine.nodes)} node{'s' if len(machine.nodes) != 1 else ''}"
        raise _infeasible(
            job,
            "resources.workers",
            f"{section.workers} workers of {each} each are asked for, and the {n_nodes} of "
            f"{machine.name} have whole places for {n_whole}; "
            "lower resources.workers or resources.cpus_per_worker",
        )
    return resources


def n_places(nodes: Sequence[Node], resources: Resources) -> int:
    """Count the workers that find a whole place on some node.

    Args:
        nodes: with what they have, or with what of it is free.
        resources: of each worker, and how many are asked for, which is the most that is counted.
    """
    most = resources.workers

    def whole(amount: float, each: float) -> int:
        # As floats, 0.1 goes nine times into 1; Ray itself counts in steps of 0.0001.
        return int(amount / each + 1e-6) if each else most

    each_node = (
        min(
            whole(node.n_cpus, resources.cpus_per_worker),
            whole(node.n_gpus, resources.gpus_per_worker),
        )
        for node in nodes
    )
    return min(most, sum(each_node))


def _infeasible(job: JobFile, key: str, message: str) -> InfeasibleError:
    return InfeasibleError(str(job.problem(key, message)))


def this_machine(*, visible_devices: str | None) -> Machine:
    """Count the cores this process may use and the NVIDIA GPUs it can see, without any library.

    Args:
        visible_devices: the value of `CUDA_VISIBLE_DEVICES`, `None` when unset.
    """
    n_gpus = len([p for p in Path("/dev").glob("nvidia*") if p.name[len("nvidia") :].isdigit()])
    if visible_devices is not None:
        n_gpus = min(n_gpus, len([d for d in visible_devices.split(",") if d.strip()]))
    return Machine(n_cpus=len(os.sched_getaffinity(0)), n_gpus=n_gpus, name="this machine")
