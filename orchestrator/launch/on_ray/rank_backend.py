"""How Ray Train prepares a group of ranks: an address to meet at, and the heavy imports.

Ray's own torch backend imports torch into driver and controller; this one only into the ranks. It
imports no torch itself.
"""

import gc
import os
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from orchestrator.launch.on_ray.node import NodeNeeds, ops_folder_here


def free_address() -> tuple[str, int]:
    """An address of this node and a port that is free now."""
    address = str(ray.util.get_node_ip_address())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return address, int(probe.getsockname()[1])


def prepare_rank(
    address: str, port: int, environment: dict[str, str], needs: NodeNeeds | None
) -> None:
    """On a rank, before training: where to meet, and what to import.

    Imports run on the main thread of the process, where memory grows in one heap.

    Args:
        address: where rank 0 is met.
        port: of it.
        environment: variables of every rank.
        needs: of the node, where ranks may be on other machines.
    """
    if needs is not None:
        environment["TORCH_EXTENSIONS_DIR"] = str(ops_folder_here(needs))
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


class RankBackend(Backend):  # type: ignore[misc]
    """Runs in the controller."""

    def on_training_start(self, worker_group: Any, backend_config: "RankBackendConfig") -> None:
        """Agree on an address and let every rank import at once."""
        address, port = worker_group.execute_single(0, free_address)
        environment = dict(backend_config.environment)
        worker_group.execute(prepare_rank, address, port, environment, backend_config.needs)


@dataclass
class RankBackendConfig(BackendConfig):  # type: ignore[misc]
    """What the ranks get before they train."""

    environment: tuple[tuple[str, str], ...] = ()
    needs: NodeNeeds | None = None
    """Of every node that has ranks; `None` where the driver has seen to it."""

    @property
    def backend_cls(self) -> type[RankBackend]:
        """The backend."""
        return RankBackend
