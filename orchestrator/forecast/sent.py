"""What a shadow run sent, as bytes on the wire. Pure arithmetic."""

from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.forecast.wire import Collective, WireTerm, ring_wire_bytes

_COLLECTIVES: dict[str, Collective] = {
    "allreduce_": "all_reduce",
    "allgather_": "all_gather",
    "_allgather_base_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "reduce_scatter_": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_": "reduce",
    "broadcast_": "broadcast",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "allreduce_coalesced_": "all_reduce",
    "allgather_coalesced_": "all_gather",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "gather_": "all_gather",
    "scatter_": "broadcast",
}
"""Torch's operations in the `c10d` namespace -> what they are called elsewhere."""


def sent_terms(shadow: ShadowResult, *, n_ranks: int) -> tuple[WireTerm, ...]:
    """What a shadow run sent, as bytes on the wire.

    Args:
        shadow: its collectives are those of torch's `c10d` namespace.
        n_ranks: N.
    """
    return tuple(
        WireTerm(
            collective=_COLLECTIVES[one.name],
            n_calls=one.n_calls,
            payload_bytes=one.payload_bytes,
            wire_bytes=ring_wire_bytes(
                _COLLECTIVES[one.name], payload_bytes=one.payload_bytes, n_ranks=n_ranks
            ),
            phase=one.phase,
            what=f"in {one.phase}",
            source="counted in the shadow run",
        )
        for one in shadow.collectives
        if one.name in _COLLECTIVES and n_ranks > 1
    )
