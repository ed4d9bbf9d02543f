"""A `compare:` section becomes variants of the job."""

import pytest

from orchestrator.spec.finding import Finding
from orchestrator.spec.grid import grid_changes, with_changes
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import load_job
from orchestrator.spec.sections import CompareSection


def test_axes_give_their_product_in_order():
    compare = CompareSection(axes={"zero.stage": [1, 3], "training.seed": [0, 1]})
    assert grid_changes(compare) == [
        {"zero.stage": 1, "training.seed": 0},
        {"zero.stage": 1, "training.seed": 1},
        {"zero.stage": 3, "training.seed": 0},
        {"zero.stage": 3, "training.seed": 1},
    ]


def test_an_exclusion_takes_out_every_combination_it_covers():
    compare = CompareSection(
        axes={"zero.stage": [0, 1, 3], "zero.offload_optimizer": ["none", "cpu"]},
        exclude=[{"zero.stage": 0, "zero.offload_optimizer": "cpu"}, {"zero.stage": 1}],
    )
    assert grid_changes(compare) == [
        {"zero.stage": 0, "zero.offload_optimizer": "none"},
        {"zero.stage": 3, "zero.offload_optimizer": "none"},
        {"zero.stage": 3, "zero.offload_optimizer": "cpu"},
    ]


def test_excluding_one_does_not_exclude_true():
    compare = CompareSection(axes={"deepspeed.x": [1, True]}, exclude=[{"deepspeed.x": 1}])
    assert [type(changes["deepspeed.x"]) for changes in grid_changes(compare)] == [bool]


def test_variants_stand_as_they_are():
    compare = CompareSection(variants=[{"name": "a"}, {"zero.stage": 3}])
    assert grid_changes(compare) == [{"name": "a"}, {"zero.stage": 3}]


def test_changes_reach_nested_keys_and_leave_the_job_alone(write_job):
    spec = load_job(write_job("zero: {stage: 1}")).spec
    variant = with_changes(spec, {"name": "v", "zero.stage": 3, "training.optimizer.lr": 0.5})
    assert isinstance(variant, JobSpec)
    assert (variant.name, variant.zero.stage, variant.training.optimizer.lr) == ("small", 3, 0.5)
    assert spec.zero.stage == 1


def test_no_changes_give_the_job_without_its_comparison(write_job):
    spec = load_job(write_job("compare: {axes: {zero.stage: [1]}}")).spec
    assert with_changes(spec, {}) == spec.model_copy(update={"compare": None})


def test_settings_left_out_stay_left_out_in_a_variant(write_job):
    variant = with_changes(load_job(write_job()).spec, {"training.optimizer.name": "sgd"})
    assert isinstance(variant, JobSpec)
    assert variant.training.optimizer.model_fields_set == {"name"}


def test_a_change_that_does_not_fit_is_a_finding(write_job):
    findings = with_changes(load_job(write_job()).spec, {"zero.stage": 7})
    assert findings == (Finding(key="zero.stage", message="got 7; choose one of 0, 1, 2, 3"),)


@pytest.mark.parametrize(
    "compare",
    [
        "{axes: {model.config.depths: [[1, 1, 1], [2, 2, 2]]}}",
        "{axes: {deepspeed.zero_optimization.overlap_comm: [true, false]}}",
        "{axes: {training.optimizer.name: [adamw, sgd]}}",
        "{variants: [{name: as-it-is}, {model.family: gpt2, data: {source: text}}]}",
        "{variants: [{training.steps: null, training.epochs: 2}]}",
    ],
)
def test_any_key_may_vary(write_job, compare):
    assert load_job(write_job(f"compare: {compare}")).spec.compare is not None
