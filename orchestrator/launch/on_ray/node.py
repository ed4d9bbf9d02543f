"""The node of a rank on somebody else's cluster: its name, and what it must have. Runs there.

What it lacks is told by the rank that the node has first, in a line that names the node.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ray

from orchestrator.errors import UsageError
from orchestrator.launch.compiled_ops import make_ready
from orchestrator.launch.failure import NodeNotReadyError
from orchestrator.launch.home import Home, package_files


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNeeds:
    """What every node is to have before its ranks train."""

    package: Mapping[str, str]
    """The driver's `home.package_files`."""
    ops_folder: Path
    """Where the driver has DeepSpeed's compiled ops."""
    ops_folder_chosen: bool
    """It was chosen by TORCH_EXTENSIONS_DIR, for all nodes."""


def node_name() -> str:
    """The name this node was started with (`ray start --node-name`), or else its machine's.

    Source: ray 2.60.0, _private/node.py: a node without a name is called by its address.
    """
    from orchestrator.worker.place import this_node

    number = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node["NodeID"] == number and node["NodeName"] != node["NodeManagerAddress"]:
            return str(node["NodeName"])
    return this_node()


def ops_folder_here(needs: NodeNeeds) -> Path:
    """Where this node has its compiled ops: it may have another processor or another cache."""
    if needs.ops_folder_chosen:
        return needs.ops_folder
    return Home(path=needs.ops_folder.parent).extensions(os.environ)


def check_package(needs: NodeNeeds, *, node: str) -> None:
    """See that this package is the driver's.

    Raises:
        NodeNotReadyError: it is another version.
    """
    here = package_files()
    others = [name for name, content in needs.package.items() if here.get(name) != content]
    if others:
        more = f" and {len(others) - 1} other files" if len(others) > 1 else ""
        raise NodeNotReadyError(
            f"node {node} has another version of this package ({others[0]}{more}); bring it up to "
            "date there, or take make submit, which sends it along"
        )


def compile_ops(ops: tuple[str, ...], *, node: str) -> None:
    """Compile what is not compiled here, into the folder of TORCH_EXTENSIONS_DIR.

    Raises:
        NodeNotReadyError: it cannot be compiled.
    """
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    try:
        make_ready(ops, folder=folder, environment=os.environ, show=print)
    except UsageError as err:
        raise NodeNotReadyError(f"node {node}: {err}") from err
