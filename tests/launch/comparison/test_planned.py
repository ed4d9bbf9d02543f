"""The plans of a comparison: what is wrong in any strategy is told before anything runs."""

import pytest

from orchestrator.errors import SpecError
from orchestrator.launch.comparison.planned import plan_strategies
from orchestrator.plan.resources import Machine
from tests import small_jobs


def plan(folder, compare, *, machine=small_jobs.MACHINE, **changes):
    job = small_jobs.write_job(folder, compare=compare, **changes)
    return plan_strategies(job, machine=machine, environment={})


def test_every_strategy_is_planned_with_its_own_settings(tmp_path):
    axes = {"zero.stage": [0, 2], "training.micro_batch_size": [2, 4]}
    planned = plan(tmp_path, {"axes": axes})
    assert [one.name for one in planned] == [
        "zero0-micro2",
        "zero0-micro4",
        "zero2-micro2",
        "zero2-micro4",
    ]
    assert [one.plan.batch.accumulation_steps for one in planned] == [4, 2, 4, 2]
    assert [one.plan.spec.zero.stage for one in planned] == [0, 0, 2, 2]
    assert {one.infeasible for one in planned} == {None}


def test_what_this_machine_lacks_makes_one_strategy_infeasible(tmp_path):
    machine = Machine(n_cpus=2, n_gpus=0, name="this machine")
    variants = [{"name": "a"}, {"name": "b", "resources.workers": 4}]
    a, b = plan(tmp_path, {"variants": variants}, machine=machine)
    assert a.infeasible is None
    assert b.infeasible is not None
    assert "4 workers x 1 CPUs need 4 CPUs and this machine has 2; lower" in b.infeasible
    assert b.plan.batch.workers == 4, "it has a plan, for its row and its forecast"


def test_a_job_that_compares_nothing_says_what_to_write(tmp_path):
    job = small_jobs.write_job(tmp_path)
    with pytest.raises(SpecError, match=r"compare: missing; say what to compare: compare: \{axes"):
        plan_strategies(job, machine=small_jobs.MACHINE, environment={})


def test_a_baseline_that_is_no_strategy_is_told_with_those_there_are(tmp_path):
    compare = {"axes": {"zero.stage": [0, 1]}, "baseline": "zero3"}
    with pytest.raises(SpecError, match="there is no strategy 'zero3'; there are zero0, zero1"):
        plan(tmp_path, compare)


def test_what_is_wrong_in_several_strategies_is_told_of_all_of_them(tmp_path):
    variants = [
        {"name": "well"},
        {"name": "odd", "training.global_batch_size": 18},
        {"name": "wide", "resources.workers": 3},
    ]
    with pytest.raises(SpecError) as told:
        plan(tmp_path, {"variants": variants})
    messages = [problem.message for problem in told.value.problems]
    assert [message.partition(":")[0] for message in messages] == ["in odd", "in wide"]
