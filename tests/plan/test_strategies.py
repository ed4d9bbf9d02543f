from dataclasses import replace

import pytest

from orchestrator.plan.launch_plan import make_plan, strategy_name
from orchestrator.plan.resources import Machine
from orchestrator.plan.strategies import candidates
from orchestrator.spec.load import load_job
from orchestrator.spec.rules import contradictions, idle_settings
from orchestrator.spec.shapes import resolve_shapes

MACHINE = Machine(n_cpus=64, n_gpus=0, name="this machine")
# Jobs that differ in how they write their batch, and in where they start.
JOBS = {
    "plain": {},
    "stage 3, offloaded": {
        "zero": {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
        "training": {"precision": "bf16", "activation_checkpointing": True},
    },
    "accumulation written": {
        "training": {"global_batch_size": None, "gradient_accumulation_steps": 2}
    },
    "all three written": {"training": {"gradient_accumulation_steps": 2}},
    "only a global batch": {"training": {"micro_batch_size": None}},
    "one sample a rank": {"training": {"global_batch_size": 2, "micro_batch_size": 1}},
    "torch engine": {"training": {"engine": "torch"}},
    "NVMe": {"zero": {"stage": 3, "offload_optimizer": "nvme", "nvme_path": "/nvme"}},
    "all on NVMe": {
        "zero": {
            "stage": 3,
            "offload_optimizer": "nvme",
            "offload_params": "nvme",
            "nvme_path": "/nvme",
        }
    },
}


@pytest.fixture(params=JOBS)
def changes(request):
    return JOBS[request.param]


@pytest.fixture
def found(plan):
    """The candidates of the small job with some sections changed."""

    def find(**changes):
        made = plan(machine=MACHINE, **changes)
        return candidates(made.spec, made.batch)

    return find


def names_of(candidates_):
    return {strategy_name(one.spec) for one in candidates_}


def settings_of(candidate):
    return dict(override.split("=", 1) for override in candidate.overrides)


def test_every_candidate_can_run_and_keeps_the_global_batch(changes, plan, write_job):
    made = plan(machine=MACHINE, **changes)
    job = write_job(**changes)
    found = candidates(made.spec, made.batch)
    for candidate in found:
        assert contradictions(candidate.spec) == ()
        assert idle_settings(candidate.spec) == ()
        planned = make_plan(replace(job, spec=candidate.spec), machine=MACHINE)
        assert planned.batch.global_batch_size == made.batch.global_batch_size
        assert planned.batch.workers == made.batch.workers


def test_the_job_as_it_stands_is_among_them_once_and_changes_nothing(changes, plan):
    made = plan(machine=MACHINE, **changes)
    (itself,) = (one for one in candidates(made.spec, made.batch) if not one.overrides)
    assert itself.spec == made.spec
    assert (itself.n_changes, itself.price) == (0, 0)


def test_what_a_candidate_changes_is_what_set_takes(changes, plan, write_job):
    made = plan(machine=MACHINE, **changes)
    path = write_job(**changes).path
    for candidate in candidates(made.spec, made.batch):
        loaded = load_job(path, overrides=candidate.overrides)
        assert resolve_shapes(loaded) == candidate.spec
        assert candidate.n_changes == len(candidate.overrides)


def test_no_two_candidates_are_the_same(changes, plan):
    made = plan(machine=MACHINE, **changes)
    found = candidates(made.spec, made.batch)
    assert len({one.overrides for one in found}) == len(found)
    assert all(one.spec != other.spec for i, one in enumerate(found) for other in found[:i])


def test_only_the_model_s_sharding_batch_and_recomputation_change(found):
    keys = {key for one in found() for key in settings_of(one)}
    assert keys == {
        "zero.stage",
        "zero.offload_optimizer",
        "zero.offload_params",
        "training.activation_checkpointing",
        "training.micro_batch_size",
    }


def test_every_stage_is_tried_with_every_offload_that_it_has(found):
    offloads = {
        stage: {
            (one.spec.zero.offload_optimizer, one.spec.zero.offload_params)
            for one in found()
            if one.spec.zero.stage == stage
        }
        for stage in (0, 1, 2, 3)
    }
    kept, optimizer = ("none", "none"), ("cpu", "none")
    # Stage 0 has nothing to offload, and only stage 3 shards its parameters.
    assert offloads[0] == {kept}
    assert offloads[1] == offloads[2] == {kept, optimizer}
    assert offloads[3] == {kept, optimizer, ("none", "cpu"), ("cpu", "cpu")}


def test_the_plain_engine_stays_what_it_is(found):
    assert names_of(found(training={"engine": "torch"})) == {"zero0", "zero0-ckpt"}


def test_nvme_is_thought_of_only_where_there_is_a_folder_for_it(found):
    assert not any("nvme" in name for name in names_of(found()))
    named = found(zero={"stage": 3, "offload_optimizer": "nvme", "nvme_path": "/nvme"})
    assert {"zero3-optim-nvme", "zero3-optim-nvme-params-cpu"} <= names_of(named)
    unused = [one for one in named if "nvme" not in strategy_name(one.spec)]
    assert unused
    assert all(one.spec.zero.nvme_path is None for one in unused)


def test_micro_batches_are_halved_and_doubled_as_far_as_they_divide_a_rank_s_samples(found):
    def sizes(**training):
        return sorted({one.spec.training.micro_batch_size for one in found(training=training)})

    # Eight samples a rank: a quarter, a half, the same and twice as many; four times is too many.
    assert sizes() == [1, 2, 4, 8]
    # Six samples a rank, three at once: one at once too, for 3 // 2 is 1; twelve are too many.
    assert sizes(global_batch_size=12, micro_batch_size=3) == [1, 3, 6]
    assert sizes(global_batch_size=2, micro_batch_size=1) == [1]


def test_a_changed_micro_batch_says_what_else_must_be_written(found):
    def said(**training):
        changed = [one for one in found(training=training) if one.n_changes]
        return {
            override
            for one in changed
            if one.spec.zero.stage == 0 and not one.spec.training.activation_checkpointing
            for override in one.overrides
            if not override.startswith("training.micro_batch_size=")
        }

    # The global batch stands in the file, and accumulation follows from it.
    assert said() == set()
    assert said(gradient_accumulation_steps=2) == {"training.gradient_accumulation_steps=null"}
    assert said(global_batch_size=None, gradient_accumulation_steps=2) == {
        "training.global_batch_size=16",
        "training.gradient_accumulation_steps=null",
    }


def test_what_saves_more_memory_is_thought_to_cost_more_speed(found):
    same_batch = [one for one in found() if one.spec.training.micro_batch_size == 4]
    price = {strategy_name(one.spec): one.price for one in same_batch}
    assert price["zero0"] == 0
    assert price["zero0"] < price["zero1"] < price["zero2"] < price["zero3"]
    for name in ("zero1", "zero2", "zero3"):
        assert price[name] < price[f"{name}-optim-cpu"]
    assert price["zero3-optim-cpu"] < price["zero3-optim-cpu-params-cpu"]
    for name in ("zero0", "zero3"):
        assert price[name] < price[f"{name}-ckpt"]


def test_a_smaller_micro_batch_is_thought_slower_the_smaller_it_is(found):
    by_size = {
        one.spec.training.micro_batch_size: one.price
        for one in found()
        if strategy_name(one.spec) == "zero0"
    }
    assert by_size[8] < by_size[4] == 0 < by_size[2] < by_size[1]


def test_what_undoes_a_costly_strategy_is_thought_faster(found):
    costly = found(zero={"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"})
    plain = next(one for one in costly if strategy_name(one.spec) == "zero0")
    assert plain.price < 0
