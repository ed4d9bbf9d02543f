from dataclasses import replace

import pytest

from orchestrator.compare.comparable import (
    differences,
    losses_differ_by_nature,
    why_not_ranked,
)
from tests.compare import made_up


def entry(name="zero0", *, circumstances=None, **changes):
    """An entry in circumstances of its own."""
    made = made_up.entry(name, **changes)
    known = replace(made.record.circumstances, **(circumstances or {}))
    return replace(made, record=replace(made.record, circumstances=known))


def training(**changes):
    return {"training": changes}


def optimizer(name, **changes):
    return training(optimizer={"name": name, "lr": 1e-3, **changes})


def never_ran(name, **changes):
    return entry(name, losses=(), rounds=(), outcome="infeasible", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"job": {"zero": {"stage": 3, "offload_optimizer": "nvme", "nvme_path": "/tmp"}}},
        {"job": {"zero": {"stage": 3, "offload_params": "cpu"}}},
        {"job": training(activation_checkpointing=True)},
        {"job": training(engine="torch")},
        {"job": training(precision="bf16")},
        {"job": training(steps=8)},
        {"workers": 4},
        {"workers": 1},
        {"micro_batch_size": 2},
        {"micro_batch_size": 8, "job": training(micro_batch_size=8)},
        {"circumstances": {"devices": ("NVIDIA H100",)}, "device": "cuda"},
    ],
)
def test_what_only_moves_the_work_leaves_the_losses_alone(changes):
    assert losses_differ_by_nature(entry(**changes), entry()) is None
    assert losses_differ_by_nature(entry(), entry(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"job": {"model": {"config": {"hidden_sizes": [16]}}}}, "model.config.hidden_sizes"),
        ({"job": {"model": {"family": "cnn", "config": {"channels": [4]}}}}, "model.family"),
        ({"job": {"data": {"image_size": 16}}}, "data.image_size"),
        ({"job": training(seed=1)}, "training.seed"),
        ({"global_batch_size": 32}, "training.global_batch_size"),
        ({"job": optimizer("adamw", lr=1e-2)}, "training.optimizer.lr"),
        ({"job": training(schedule={"name": "cosine"})}, "training.schedule.name"),
        ({"job": training(gradient_clipping=1.0)}, "training.gradient_clipping"),
        ({"job": training(loss="mse")}, "training.loss"),
    ],
)
def test_another_training_has_other_losses(changes, key):
    assert losses_differ_by_nature(entry(**changes), entry()) == f"another {key}"


def test_another_model_is_named_before_what_else_differs():
    other = entry(job={"model": {"family": "cnn"}, "training": {"seed": 1, "loss": "mse"}})
    reason = losses_differ_by_nature(other, entry())
    assert reason == "another model.family, training.seed, training.loss"


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_length_matters_to_a_rate_that_falls(name):
    def of(steps):
        return entry(job=training(schedule={"name": name}, steps=steps))

    assert losses_differ_by_nature(of(8), of(4)) == "another training.steps"
    assert losses_differ_by_nature(of(4), of(4)) is None


@pytest.mark.parametrize("side", [0, 1])
def test_batch_norm_ties_the_losses_to_the_micro_batch(side):
    other = entry(micro_batch_size=4, circumstances={"batch_norm": side == 0})
    baseline = entry(micro_batch_size=8, circumstances={"batch_norm": side == 1})
    assert losses_differ_by_nature(other, baseline) == (
        "BatchNorm normalises over micro-batches of 4, the baseline's over 8"
    )


def test_batch_norm_ties_the_losses_to_the_workers():
    many = entry(workers=4, circumstances={"batch_norm": True})
    assert "on 4 workers, the baseline's on 2" in str(losses_differ_by_nature(many, entry()))


def test_batch_norm_does_not_mind_the_stage():
    known = {"batch_norm": True}
    sharded = entry(job={"zero": {"stage": 3}}, circumstances=known)
    assert losses_differ_by_nature(sharded, entry(circumstances=known)) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"micro_batch_size": 2}, "for micro-batches of 2, the baseline's of 4"),
        ({"workers": 4}, "on 4 workers, the baseline's on 2"),
        ({"accumulation_steps": 1}, "for 1 micro-batches a step, the baseline's for 2"),
        ({"device": "cuda"}, "on cuda, the baseline's on cpu"),
    ],
)
def test_dropout_draws_other_numbers_where_the_batch_is_split_otherwise(changes, told):
    random = {"draws_random": True}
    other = entry(circumstances=random, **changes)
    reason = losses_differ_by_nature(other, entry(circumstances=random))
    assert reason == f"dropout draws other numbers: {told}"


def test_dropout_is_the_same_under_another_stage_and_with_recomputation():
    random = {"draws_random": True}
    job = {"zero": {"stage": 2}, "training": {"activation_checkpointing": True}}
    other = entry(circumstances=random, job=job)
    assert losses_differ_by_nature(other, entry(circumstances=random)) is None


def adafactor(stage, workers=2):
    return entry(job={**optimizer("adafactor"), "zero": {"stage": stage}}, workers=workers)


def test_adafactor_depends_on_the_share_that_a_rank_holds():
    by_stage = losses_differ_by_nature(adafactor(1), adafactor(0))
    by_workers = losses_differ_by_nature(adafactor(2, workers=4), adafactor(2))
    assert "stage 1, the baseline's 0" in str(by_stage)
    assert "on 4 workers, the baseline's on 2" in str(by_workers)


def test_adafactor_without_shares_does_not_mind_the_workers():
    assert losses_differ_by_nature(adafactor(0, workers=4), adafactor(0)) is None


def test_lion_moves_idle_weights_otherwise_where_it_is_offloaded():
    def lion(place):
        return entry(job={**optimizer("lion"), "zero": {"stage": 3, "offload_optimizer": place}})

    assert "lion" in str(losses_differ_by_nature(lion("cpu"), lion("none")))
    assert losses_differ_by_nature(lion("cpu"), lion("nvme")) is None


def test_runs_that_differ_in_strategy_alone_have_no_differences():
    job = {"zero": {"stage": 3}, "training": {"precision": "bf16", "micro_batch_size": 2}}
    assert differences([entry(), entry("zero3", job=job, micro_batch_size=2)]) == ()


def test_versions_are_told_with_who_has_which():
    def of(name, torch):
        return entry(name, circumstances={"versions": {"torch": torch, "ray": "2.60.0"}})

    found = differences([of("zero0", "2.13.0"), of("zero1", "2.13.0"), of("zero2", "2.11.0")])
    assert found == ("torch: 2.13.0 (zero0, zero1), 2.11.0 (zero2)",)


def test_of_many_names_three_are_told():
    many = [entry(f"r{n}", user="ann") for n in range(15)]
    assert differences([*many, entry("last", user="bob")]) == (
        "user: ann (r0, r1, r2 and 12 more), bob (last)",
    )


def test_what_is_told_covers_commit_device_and_settings():
    other = entry(
        "b",
        commit="b" * 40,
        circumstances={"devices": ("NVIDIA H100",)},
        job=training(seed=7),
        global_batch_size=32,
        workers=4,
    )
    assert differences([entry("a", commit="a" * 40), other]) == (
        "device: cpu (a), NVIDIA H100 (b)",
        "commit: aaaaaaaaaaaa (a), bbbbbbbbbbbb (b)",
        "training.global_batch_size: 16 (a), 32 (b)",
        "training.seed: 0 (a), 7 (b)",
    )


def test_one_and_true_are_two_values():
    one, yes = entry("a", job={"measure": {}}), entry("b", job=training(seed=True))
    other = entry("c", job=training(seed=1))
    assert differences([one, yes]) == ("training.seed: 0 (a), true (b)",)
    assert differences([yes, other]) == ("training.seed: true (b), 1 (c)",)


def test_what_was_varied_on_purpose_is_no_difference():
    other = entry("b", job={"model": {"config": {"hidden_sizes": [16]}}, **training(seed=7)})
    runs = [entry("a"), other]
    assert differences(runs, varied=frozenset({"model.config", "training.seed"})) == ()
    assert differences(runs, varied=frozenset({"model"})) == ("training.seed: 0 (a), 7 (b)",)


def test_unknown_versions_devices_commits_and_users_differ_from_nothing():
    old = entry("old", circumstances={"versions": {}, "devices": ()})
    runs = [entry("a", commit="a", user="ann"), old, never_ran("b")]
    assert differences(runs) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"circumstances": {"versions": {"torch": "2.11.0"}}},
        {"commit": "b", "user": "bob"},
        {"workers": 4, "micro_batch_size": 2},
        {"job": {"zero": {"stage": 3, "offload_optimizer": "cpu"}}},
        {"job": training(precision="bf16", activation_checkpointing=True, seed=3)},
        {"job": optimizer("sgd", lr=1.0)},
    ],
)
def test_runs_that_do_the_same_work_are_ranked(changes):
    assert why_not_ranked([entry("a", commit="a", user="ann"), entry("b", **changes)]) == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"circumstances": {"devices": ("NVIDIA H100",)}},
            "another device: cpu (a), NVIDIA H100 (b)",
        ),
        (
            {"job": {"model": {"config": {"hidden_sizes": [16]}}}},
            "another model.config.hidden_sizes: [8] (a), [16] (b)",
        ),
        (
            {"job": {"data": {"source": "text", "sequence_length": 64}}},
            "another data.source: digits (a), text (b)",
        ),
        ({"job": {"data": {"image_size": 16}}}, "another data.image_size: 8 (a), 16 (b)"),
        ({"global_batch_size": 32}, "another training.global_batch_size: 16 (a), 32 (b)"),
        ({"job": training(loss="mse")}, "another training.loss: none (a), mse (b)"),
    ],
)
def test_runs_that_do_other_work_are_not_ranked(changes, reason):
    assert why_not_ranked([entry("a"), entry("b", **changes)]) == (reason,)


def test_a_strategy_that_never_ran_forbids_no_ranking():
    assert why_not_ranked([entry("a"), never_ran("b", global_batch_size=32)]) == ()


def test_other_work_on_purpose_is_ranked():
    other = entry(
        "b",
        global_batch_size=32,
        job={"model": {"config": {"hidden_sizes": [16]}}},
    )
    runs = [entry("a"), other]
    varied = frozenset({"model.config", "training.global_batch_size"})
    assert why_not_ranked(runs, varied=varied) == ()
    assert len(why_not_ranked(runs, varied=frozenset({"model.config"}))) == 1
    assert len(why_not_ranked(runs, varied=frozenset({"model.conf"}))) == 2


def test_what_follows_from_data_that_was_varied_is_ranked():
    def of(length):
        model = {"family": "gpt2", "config": {"n_positions": length}}
        data = {"source": "text", "sequence_length": length}
        return entry(str(length), job={"model": model, "data": data})

    runs = [of(64), of(128)]
    assert why_not_ranked(runs, varied=frozenset({"data.sequence_length"})) == ()
    assert len(why_not_ranked(runs)) == 2


def test_a_family_that_was_varied_brings_its_own_settings():
    other = entry("b", job={"model": {"family": "cnn", "config": {"channels": [4]}}})
    runs = [entry("a"), other]
    assert why_not_ranked(runs, varied=frozenset({"model.family"})) == ()
    assert differences(runs, varied=frozenset({"model.family"})) == ()


def test_a_global_batch_that_follows_from_varied_micro_batches_is_ranked_and_told():
    def of(micro):
        job = training(micro_batch_size=micro, global_batch_size=None)
        return entry(str(micro), job=job, micro_batch_size=micro, global_batch_size=4 * micro)

    varied = frozenset({"training.micro_batch_size"})
    assert why_not_ranked([of(4), of(8)], varied=varied) == ()
    assert differences([of(4), of(8)], varied=varied) == (
        "training.global_batch_size: 16 (4), 32 (8)",
    )
    assert len(why_not_ranked([of(4), of(8)])) == 1
