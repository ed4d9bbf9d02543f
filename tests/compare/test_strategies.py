import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compare.strategies import _told_apart, strategies_of
from tests.small_jobs import write_job


def names(folder, **compare):
    spec = write_job(folder, compare=compare).spec
    return [strategy.name for strategy in strategies_of(spec)]


def test_strategies_are_named_by_how_they_shard(tmp_path):
    found = names(
        tmp_path,
        axes={
            "zero.stage": [1, 3],
            "zero.offload_optimizer": ["none", "cpu"],
            "training.precision": ["fp32", "bf16"],
        },
    )
    assert found == [
        "zero1", "zero1-bf16", "zero1-optim-cpu", "zero1-optim-cpu-bf16",
        "zero3", "zero3-bf16", "zero3-optim-cpu", "zero3-optim-cpu-bf16",
    ]  # fmt: skip


def test_a_micro_batch_that_varies_is_told_and_one_that_does_not_is_not(tmp_path):
    assert names(tmp_path, axes={"training.micro_batch_size": [2, 4]}) == [
        "zero0-micro2",
        "zero0-micro4",
    ]
    assert names(tmp_path, axes={"zero.stage": [0, 1]}) == ["zero0", "zero1"]


def test_other_keys_stand_with_their_value(tmp_path):
    found = names(
        tmp_path,
        axes={"training.optimizer.lr": [0.01, 1.0e-3], "training.optimizer.name": ["adamw", "sgd"]},
    )
    assert found == ["zero0-lr0.01-adamw", "zero0-lr0.01-sgd", "zero0-lr0.001-adamw",
                     "zero0-lr0.001-sgd"]  # fmt: skip


def test_keys_that_end_alike_are_told_in_full(tmp_path):
    found = names(tmp_path, axes={"training.seed": [1], "model.config.hidden_sizes": [[4, 5]]})
    assert found == ["zero0-seed1-hidden_sizes4x5"]


def test_a_variant_keeps_its_own_name_and_only_changes_what_it_says(tmp_path):
    spec = write_job(
        tmp_path, compare={"variants": [{"name": "plain"}, {"name": "mine", "zero.stage": 2}]}
    ).spec
    plain, mine = strategies_of(spec)
    assert (plain.name, dict(plain.changes), plain.spec.zero.stage) == ("plain", {}, 0)
    assert (mine.name, dict(mine.changes), mine.spec.zero.stage) == ("mine", {"zero.stage": 2}, 2)


def test_strategies_that_would_be_called_the_same_are_numbered(tmp_path):
    found = names(tmp_path, variants=[{"zero.stage": 1}, {"zero.stage": 1}, {"zero.stage": 0}])
    assert found == ["zero1", "zero1.2", "zero0"]


def test_a_name_can_be_the_name_of_a_folder(tmp_path):
    (found,) = names(tmp_path, variants=[{"name": "../a b/c", "zero.stage": 1}])
    assert found == "a_b_c"


@given(st.lists(st.sampled_from(["a", "a.2", "a.2.2", "b", "a.3"]), max_size=8))
def test_no_two_strategies_are_called_the_same(given_names):
    told = _told_apart(given_names)
    assert len(set(told)) == len(told) == len(given_names)


def test_a_job_that_compares_nothing_has_no_strategies(tmp_path):
    with pytest.raises(ValueError, match="no compare section"):
        strategies_of(write_job(tmp_path).spec)
