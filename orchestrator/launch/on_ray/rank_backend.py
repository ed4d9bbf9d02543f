"""How Ray Train prepares a group of ranks: compiled ops, an address to meet at, heavy imports.

Ray's own torch backend imports torch into driver and controller; this one only into the ranks. It
imports no torch itself.
"""

import gc
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from orchestrator.errors import UsageError
from orchestrator.launch.compiled_ops import make_ready
from orchestrator.launch.home import Home
from orchestrator.launch.on_ray.node_name import node_name

log = logging.getLogger(__name__)


def free_address() -> tuple[str, int]:
    """An address of this node and a port that is free now."""
    address = str(ray.util.get_node_ip_address())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


def prepare_rank(
    address: str, port: int, environment: dict[str, str], drivers_folder: Path | None
) -> None:
    """On a rank, before training: where to meet, and what to import.

    Imports run on the main thread of the process, where memory grows in one heap.

    Args:
        address: where rank 0 is met.
        port: of it.
        environment: variables of every rank.
        drivers_folder: of compiled ops, where the ranks may be on other machines.
    """
    if drivers_folder is not None:
        environment["TORCH_EXTENSIONS_DIR"] = str(ops_folder_here(drivers_folder))
    os.environ.update(environment)
    os.environ |= {
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "ORCHESTRATOR_ENTERED_UNIX_S": str(time.time()),
    }
    # DeepSpeed's autotuner imports mlflow if it can: a second of CPU for what ranks never use.
    hidden = "mlflow" not in sys.modules
    if hidden:
        sys.modules["mlflow"] = None  # type: ignore[assignment]
    gc.disable()
    try:
        import orchestrator.launch.on_ray.rank_entry
        import orchestrator.worker.rank  # noqa: F401
    finally:
        gc.enable()
        if hidden:
            del sys.modules["mlflow"]


def make_node_ready(ops: tuple[str, ...], drivers_folder: Path) -> str | None:
    """On one rank of a node: compile the ops that are not compiled there.

    Args:
        ops: as `compiled_ops.make_ready` takes them.
        drivers_folder: where the driver has its own.

    Returns:
        What went wrong and what to do; `None` if nothing did.
    """
    folder = ops_folder_here(drivers_folder)
    try:
        make_ready(ops, folder=folder, environment=os.environ, show=log.info)
    except UsageError as err:
        return f"node {node_name()}: {err}"
    return None


def ops_folder_here(drivers_folder: Path) -> Path:
    """Where this node has its compiled ops: it may have another processor or another cache."""
    return Home(path=drivers_folder.parent).extensions(os.environ)


class RankBackend(Backend):  # type: ignore[misc]
    """Runs in the controller."""

    def on_training_start(self, worker_group: Any, backend_config: "RankBackendConfig") -> None:
        """Make the nodes ready, agree on an address, and let every rank import at once.

        Raises:
            UsageError: an op cannot be compiled on a node.
        """
        folder = backend_config.ops_folder
        if folder is not None and backend_config.ops:
            _make_nodes_ready(worker_group, backend_config.ops, folder)
        address, port = worker_group.execute_single(0, free_address)
        environment = dict(backend_config.environment)
        worker_group.execute(prepare_rank, address, port, environment, folder)


def _make_nodes_ready(worker_group: Any, ops: tuple[str, ...], folder: Path) -> None:
    """Let one rank of each node compile, all nodes at once."""
    one_of_each = {worker.metadata.node_id: worker for worker in worker_group.get_workers()}
    asked = [worker.execute_async(make_node_ready, ops, folder) for worker in one_of_each.values()]
    found = ray.get(asked)
    if troubles := [trouble for trouble in found if trouble is not None]:
        raise UsageError("\n".join(troubles))


@dataclass
class RankBackendConfig(BackendConfig):  # type: ignore[misc]
    """What the ranks get before they train."""

    environment: tuple[tuple[str, str], ...] = ()
    ops: tuple[str, ...] = ()
    """DeepSpeed's, to be compiled on every node that has ranks."""
    ops_folder: Path | None = None
    """The driver's; `None` where it is the ranks' own, ready for them."""

    @property
    def backend_cls(self) -> type[RankBackend]:
        """The backend."""
        return RankBackend
