import json

import pytest

from orchestrator.forecast.forecast import Budget
from orchestrator.forecast.step_time import StepTime
from orchestrator.forecast.verdict import Interval, Verdict
from orchestrator.launch.strategy_grid import GridRow, _nearness, in_order
from orchestrator.plan.strategies import Candidate
from tests import small_jobs
from tests.forecast.made_up import held, make_forecast


def estimate(total_s):
    return StepTime(
        compute_s=total_s,
        communication_s=0.0,
        exposed_communication_s=0.0,
        optimizer_s=0.0,
        transfer_s=0.0,
        total_s=total_s,
        assumptions=(),
    )


@pytest.fixture
def row(tmp_path):
    plan = small_jobs.plan_job(tmp_path)

    def make(name="zero0", *, step_s=0.5, price=0.0, peak_bytes=100, overrides=(), **changes):
        settings = {
            "step_time": None if step_s is None else estimate(step_s),
            "phase_ledgers": {"step": held(params=peak_bytes)},
            **changes,
        }
        candidate = Candidate(
            spec=plan.spec, overrides=overrides, n_changes=len(overrides), price=price
        )
        return GridRow(
            candidate=candidate,
            plan=plan,
            profile=None,
            forecast=make_forecast(**settings),
            name=name,
        )

    return make


def names(rows):
    return [row.name for row in in_order(rows)]


def test_what_fits_comes_before_what_does_not_however_slow_it_is(row):
    rows = [
        row("too big", verdict=Verdict.TOO_BIG, step_s=0.1),
        row("tight", verdict=Verdict.TIGHT, step_s=0.2),
        row("fits", verdict=Verdict.FITS, step_s=9.0),
    ]
    assert names(rows) == ["fits", "tight", "too big"]


def test_of_those_that_fit_the_fastest_by_estimate_is_first(row):
    rows = [row("slow", step_s=3.0, price=-5.0), row("fast", step_s=1.0, price=5.0)]
    assert names(rows) == ["fast", "slow"]


def test_of_equally_fast_ones_the_smaller_is_first(row):
    assert names([row("large", peak_bytes=9), row("small", peak_bytes=7)]) == ["small", "large"]


def test_without_an_estimate_what_is_thought_to_cost_less_is_first(row):
    rows = [row(str(price), step_s=None, price=price) for price in (3.0, -1.0, 0.0)]
    assert names(rows) == ["-1.0", "0.0", "3.0"]


def test_order_leaves_equals_and_the_rows_themselves_alone(row):
    rows = [row("first"), row("second"), row("third")]
    assert names(rows) == ["first", "second", "third"]
    assert sorted(map(id, in_order(rows))) == sorted(map(id, rows))
    assert in_order([]) == []


@pytest.mark.parametrize(
    ("expected_bytes", "nearness"),
    [(1000, 0.0), (900, 0.1), (1100, 0.1), (250, 0.75), (0, 1.0), (5000, 1.0)],
)
def test_a_row_is_near_its_budget_from_either_side(row, expected_bytes, nearness):
    # Its ends say nothing of it.
    needed = Interval(low=0, expected=expected_bytes, high=10**9)
    one = row(needed=needed, budget=Budget(n_bytes=1000, of="of it"))
    assert _nearness(one) == pytest.approx(nearness)


def test_without_a_budget_no_row_is_nearer_than_another(row):
    assert {_nearness(row(budget=None, peak_bytes=size)) for size in (1, 10**12)} == {1.0}


def test_a_row_in_json_has_what_it_changes_and_no_terms(row):
    one = row("zero2-micro2", overrides=("zero.stage=2", "training.micro_batch_size=2"))
    told = json.loads(json.dumps(one.to_json()))
    assert told["overrides"] == ["zero.stage=2", "training.micro_batch_size=2"]
    # With its micro-batch, where that is not the job's.
    assert told["strategy"] == "zero2-micro2"
    # That of its plan.
    assert told["micro_batch_size"] == 4
    assert told["device_bytes"]["total"] == 100
    assert "terms" not in told
