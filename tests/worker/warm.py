"""Ranks that train one plan after another, as those of a comparison do."""

from functools import partial

from orchestrator.plan.extent import WHOLE, Extent
from orchestrator.plan.launch_plan import LaunchPlan
from tests.worker.ranks import Outcome, run_ranks


def run_in_turn(plans: list[LaunchPlan], *, extents: list[Extent] | None = None) -> list[Outcome]:
    """Train plans in one group of processes, in this order; an outcome each."""
    extents = extents or [WHOLE] * len(plans)
    all_told = run_ranks(plans[0], work=partial(_work, plans, extents))
    assert not all_told.errors, all_told.errors
    outcomes = [Outcome() for _ in plans]
    for rank, number, record in all_told.records:
        assert rank == getattr(record, "rank", 0)
        outcomes[number].records.append(record)
    return outcomes


def _work(plans, extents, _plan, place, *, put):
    from orchestrator.worker.rank import Rank

    with Rank(plans[0], place, timeout_s=60) as rank:
        for number, (plan, extent) in enumerate(zip(plans, extents, strict=True)):
            if number:
                rank.clear()
            rank.train(plan, put=partial(_put, put, place.rank, number), extent=extent)


def _put(put, rank, number, record):
    put((rank, number, record))
