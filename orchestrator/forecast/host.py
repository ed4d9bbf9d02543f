"""What the ranks of one node take of its memory, all together. Pure arithmetic.

Offloaded tensors, what a process is before it holds any, the model that every rank builds before it
is sharded, and Ray's object store. DeepSpeed's shared-memory collectives, 66 MiB a rank in
/dev/shm, are never used (`worker/deepspeed_engine.py`).
"""

from dataclasses import dataclass

from orchestrator.forecast.setup import Setup
from orchestrator.forecast.verdict import Interval
from orchestrator.units import MIB

PROCESS_BYTES = (350 * MIB, 750 * MIB)
"""Python, torch, DeepSpeed and Ray in one rank without tensors. Measured on Linux with torch 2.13
for CPUs: 700 MiB resident, half of them libraries that ranks share. CUDA's libraries add to it."""
RAY_BYTES = (300 * MIB, 1200 * MIB)
"""Ray's own processes and object store on a node (measured with two ranks)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostForecast:
    """The memory of one node."""

    ranks_per_node: int
    offloaded_bytes: int
    """Of one rank: what the strategy keeps on the host, in tensors."""
    pinned_rounding_bytes: int
    """Of one rank: what page-locked blocks take beyond their tensors, being powers of two."""
    tensor_bytes: int
    """Of one rank: on a CPU, what it trains with; 0 where that is in a GPU."""
    start_bytes: int
    """Of one rank: the whole model in fp32, which it builds before anything is sharded or moved."""
    node_bytes: Interval
    """All ranks of a node, at the fullest moment."""


def host_forecast(
    setup: Setup,
    *,
    offloaded_bytes: int,
    pinned_rounding_bytes: int,
    device_peak_bytes: int,
    n_elements: int,
) -> HostForecast:
    """Add up a node.

    Args:
        setup: strategy and ranks.
        offloaded_bytes: of one rank, in tensors.
        pinned_rounding_bytes: of one rank.
        device_peak_bytes: tensors of one rank on its device; on a CPU that is the node's memory.
        n_elements: of the whole model.
    """
    on_cpu = setup.device == "cpu"
    tensor_bytes = device_peak_bytes if on_cpu else 0
    # On a CPU the model is part of the peak while it is built.
    start_bytes = 0 if on_cpu else 4 * n_elements
    training = offloaded_bytes + pinned_rounding_bytes + tensor_bytes
    each = max(training, start_bytes)
    total = Interval(low=0, expected=0, high=0).plus(*RAY_BYTES)
    for _ in range(setup.ranks_per_node):
        total = total.plus(PROCESS_BYTES[0] + each, PROCESS_BYTES[1] + each)
    return HostForecast(
        ranks_per_node=setup.ranks_per_node,
        offloaded_bytes=offloaded_bytes,
        pinned_rounding_bytes=pinned_rounding_bytes,
        tensor_bytes=tensor_bytes,
        start_bytes=start_bytes,
        node_bytes=total,
    )
