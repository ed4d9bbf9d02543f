"""What a rank sends in one optimizer step, by collective: payload, and bytes on the wire.

Pure arithmetic. P = trainable parameters, N = ranks, b = bytes of a weight, g = micro-batches of a
step. Flags and norms, a few bytes each, are left out.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.forecast.activations import arrivals_of, trace_at
from orchestrator.forecast.layout import Layout, layout_of
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.reduction import STAGE_0_BUCKET_ELEMENTS
from orchestrator.forecast.setup import BYTES_OF, Setup
from orchestrator.forecast.sharded import gathering_of, walked
from orchestrator.forecast.states import keeps_whole_fp32_gradients, persistent_sizes

Collective = Literal[
    "all_reduce", "all_gather", "reduce_scatter", "reduce", "broadcast", "all_to_all"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class WireTerm:
    """One kind of collective in one optimizer step of one rank."""

    collective: Collective
    n_calls: int
    payload_bytes: int
    """What is reduced or comes out gathered, of all calls together."""
    wire_bytes: int
    """What a rank sends of it by the ring algorithm."""
    phase: str
    """`forward`, `backward` or `step`."""
    what: str
    source: str


def ring_wire_bytes(collective: Collective, payload_bytes: int, n_ranks: int) -> int:
    """What one rank sends when a collective runs as a ring.

    Args:
        collective: which.
        payload_bytes: S, the whole tensor: what is reduced, or comes out gathered.
        n_ranks: N, at least 1.

    Returns:
        2(N-1)/N x S for an all-reduce, a reduce-scatter and then an all-gather; (N-1)/N x S for
        the others. A pipelined broadcast or reduce sends as much on the average of the ranks.

    Raises:
        ValueError: there is no rank.

    Source:
        Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations
        (JPDC 2009), section 3; ZeRO (arXiv:1910.02054), section 7.1.
    """
    if n_ranks < 1:
        raise ValueError(f"{n_ranks} ranks cannot send anything")
    rounds = 2 if collective == "all_reduce" else 1
    return math.ceil(rounds * (n_ranks - 1) * payload_bytes / n_ranks)


def wire_terms(
    setup: Setup, *, profile: ModelProfile | None = None, n_params: int | None = None
) -> tuple[WireTerm, ...]:
    """What one optimizer step sends.

    Args:
        setup: the strategy.
        profile: the model; without it calls are counted for many equal small parameters, and
            stage 3 is taken to gather everything once in forward and once in backward.
        n_params: trainable parameters; needed without a profile.

    Raises:
        ValueError: neither profile nor count.

    Source:
        deepspeed 0.19.8: runtime/engine.py:3823; runtime/zero/stage_1_and_2.py:1695, which
        all-reduces at stage 2 too, every micro-batch; runtime/zero/stage3.py:1520.
    """
    layout = layout_of(profile, n_params=n_params, n_ranks=setup.n_ranks, rank=0)
    if setup.n_ranks == 1:
        return ()
    if setup.engine == "torch":
        return (
            _term(
                "all_reduce",
                [4 * layout.n_trainable],
                setup,
                "gradients 4P, once a step",
                phase="backward",
            ),
        )
    if setup.stage == 0 or keeps_whole_fp32_gradients(setup):
        buckets = _stage_0_buckets(setup, layout)
        terms = [_term("all_reduce", buckets, setup, "gradients, once a step", phase="backward")]
        if setup.stage == 1:
            terms.append(_updated_weights(setup, layout))
        return tuple(terms)
    if setup.stage == 3:
        return _sharded(setup, layout, profile)
    n_times = 1 if setup.stage == 1 else setup.accumulation_steps
    when = "once a step" if setup.stage == 1 else "every micro-batch"
    order = _order_of_gradients(setup, layout, profile)
    each = BYTES_OF[setup.communication_dtype]
    sizes = [layout.trainable[parameter] for parameter in order]
    buckets = [each * n for n in _filled(sizes, setup.reduce_bucket_elements)]
    if setup.stage == 1 or setup.multi_rank_bucket_allreduce:
        reduced = _term(
            "all_reduce", buckets * n_times, setup, f"gradients, {when}", phase="backward"
        )
    else:
        n_calls = _n_owners(setup, layout, order)
        # Each bucket is sent in as many parts as ranks own some of it.
        calls = [*buckets, *[0] * (n_calls - len(buckets))] * n_times
        reduced = _term(
            "reduce", calls, setup, f"gradients to their owners, {when}", phase="backward"
        )
    return (reduced, _updated_weights(setup, layout))


def _sharded(setup: Setup, layout: Layout, profile: ModelProfile | None) -> tuple[WireTerm, ...]:
    g, b = setup.accumulation_steps, setup.weight_bytes
    if profile is None:
        before = after = [b * layout.n_ranks * sum(layout.shards)]
    else:
        walk = walked(profile, gathering_of(setup))
        before, after = list(walk.forward_calls), list(walk.backward_calls)
    order = _order_of_gradients(setup, layout, profile)
    sizes = [layout.trainable[parameter] for parameter in order]
    n_calls = len(_filled(sizes, setup.reduce_bucket_elements))
    # Each gradient is padded by itself, in whichever bucket it is.
    each = BYTES_OF[setup.communication_dtype]
    scattered = [each * layout.n_ranks * sum(layout.shards), *[0] * (n_calls - 1)]
    kept = [] if layout.counted else persistent_sizes(setup, layout)
    often = "every micro-batch"
    terms = [
        _term("all_gather", before * g, setup, f"weights, {often}", phase="forward"),
        _term("all_gather", after * g, setup, f"weights, {often}", phase="backward"),
        _term("reduce_scatter", scattered * g, setup, f"gradients, {often}", phase="backward"),
        _term("all_gather", [b * n for n in kept], setup, "weights that stay", phase="step"),
    ]
    return tuple(term for term in terms if term.n_calls)


def _order_of_gradients(
    setup: Setup, layout: Layout, profile: ModelProfile | None
) -> Sequence[int]:
    """Trainable parameters in the order in which their gradients are put into buckets."""
    if setup.stage == 1:
        return range(len(layout.trainable))
    if profile is None:
        return range(len(layout.trainable))[::-1]
    trace = trace_at(profile, setup.micro_batch_size)
    return [arrival.parameter for arrival in arrivals_of(trace, profile)]


def _stage_0_buckets(setup: Setup, layout: Layout) -> list[int]:
    each = BYTES_OF[setup.communication_dtype]
    if keeps_whole_fp32_gradients(setup):
        return [each * layout.flat_elements]
    buckets, current = [], 0
    for n_elements in layout.trainable:
        current += n_elements
        if current > STAGE_0_BUCKET_ELEMENTS:
            buckets.append(each * current)
            current = 0
    return [*buckets, each * current] if current else buckets


def _n_owners(setup: Setup, layout: Layout, order: Sequence[int]) -> int:
    """Over all buckets, how many ranks own a part of each."""
    owners_of: dict[int, set[int]] = defaultdict(set)
    for piece in layout.slices(range(len(layout.trainable))):
        owners_of[piece.parameter].add(piece.owner)
    n_owners, current, owners = 0, 0, set[int]()
    for parameter in order:
        n_elements = layout.trainable[parameter]
        if owners and current + n_elements > setup.reduce_bucket_elements:
            n_owners += len(owners)
            current, owners = 0, set()
        current += n_elements
        owners |= owners_of[parameter]
    return n_owners + len(owners)


def _filled(sizes: Sequence[int], most: int) -> list[int]:
    """Sizes put into buckets in order; one that does not fit begins the next."""
    buckets: list[int] = []
    current = 0
    for size in sizes:
        if current and current + size > most:
            buckets.append(current)
            current = 0
        current += size
    return [*buckets, current] if current else buckets


def _updated_weights(setup: Setup, layout: Layout) -> WireTerm:
    n_bytes = setup.weight_bytes * layout.flat_elements
    return _term(
        "all_gather", [n_bytes], setup, f"updated weights {setup.weight_bytes}P", phase="step"
    )


def _term(
    collective: Collective, calls: Sequence[int], setup: Setup, what: str, *, phase: str
) -> WireTerm:
    payload_bytes = sum(calls)
    return WireTerm(
        collective=collective,
        n_calls=len(calls),
        payload_bytes=payload_bytes,
        wire_bytes=ring_wire_bytes(collective, payload_bytes, setup.n_ranks),
        phase=phase,
        what=what,
        source=f"deepspeed 0.19.8, stage {setup.stage}" if setup.engine == "deepspeed" else "ours",
    )
