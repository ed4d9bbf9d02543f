import json
import pickle
from dataclasses import FrozenInstanceError

import pytest

from orchestrator.errors import InfeasibleError, SpecError
from orchestrator.plan.launch_plan import make_plan, strategy_name
from orchestrator.plan.resources import Machine

GPUS = Machine(n_cpus=8, n_gpus=2, name="this machine")


def test_a_plan_fills_in_every_size(plan):
    made = plan()
    assert made.batch.accumulation_steps == 2
    config = made.spec.model.config
    assert (config.input_size, config.num_labels) == (64, 10)
    assert made.n_params == 64 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert made.strategy == "zero0"
    assert made.resources.device == "cpu"
    assert (made.compiled_ops, made.notes) == ((), ())
    assert made.folder.is_absolute()


@pytest.mark.parametrize(
    ("zero", "training", "name"),
    [
        ({"stage": 0}, {}, "zero0"),
        ({"stage": 2}, {"precision": "bf16"}, "zero2-bf16"),
        ({"stage": 1, "offload_optimizer": "cpu"}, {}, "zero1-optim-cpu"),
        ({"stage": 3, "offload_params": "cpu"}, {}, "zero3-params-cpu"),
        ({"stage": 0}, {"activation_checkpointing": True}, "zero0-ckpt"),
        (
            {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
            {"precision": "bf16", "activation_checkpointing": True},
            "zero3-optim-cpu-params-cpu-bf16-ckpt",
        ),
        (
            {
                "stage": 3,
                "offload_optimizer": "nvme",
                "offload_params": "nvme",
                "nvme_path": "/nvme",
            },
            {},
            "zero3-optim-nvme-params-nvme",
        ),
    ],
)
def test_a_strategy_is_named_by_what_is_switched_on(write_job, zero, training, name):
    assert strategy_name(write_job(zero=zero, training=training).spec) == name


@pytest.mark.parametrize(
    ("zero", "optimizer", "cpu_adam", "ops"),
    [
        ({"stage": 3}, "adamw", True, ()),
        ({"stage": 2, "offload_optimizer": "cpu"}, "adamw", True, ("cpu_adam",)),
        ({"stage": 2, "offload_optimizer": "cpu"}, "adamw", False, ()),
        ({"stage": 2, "offload_optimizer": "cpu"}, "sgd", True, ()),
        ({"stage": 3, "offload_params": "cpu"}, "adam", True, ()),
        (
            {"stage": 3, "offload_optimizer": "nvme", "nvme_path": "/nvme"},
            "adam",
            True,
            ("cpu_adam", "async_io"),
        ),
        (
            {"stage": 3, "offload_params": "nvme", "nvme_path": "/nvme"},
            "adam",
            True,
            ("async_io",),
        ),
        ({"stage": 1, "offload_optimizer": "cpu"}, "lion", True, ("cpu_lion",)),
        (
            {"stage": 3, "offload_optimizer": "nvme", "nvme_path": "/nvme"},
            "lion",
            True,
            ("cpu_lion", "async_io"),
        ),
        ({"stage": 2, "offload_optimizer": "cpu"}, "adafactor", True, ()),
    ],
)
def test_only_ops_the_job_uses_are_compiled(plan, zero, optimizer, cpu_adam, ops):
    training = {"optimizer": {"name": optimizer}}
    assert plan(zero=zero, training=training, cpu_adam=cpu_adam).compiled_ops == ops


def test_the_plain_engine_gets_no_deepspeed_dict(plan):
    assert plan(training={"engine": "torch"}).deepspeed is None


def test_checkpoints_that_are_not_written_are_told(plan):
    (note,) = plan(checkpoint={"every_steps": 5}).notes
    assert note.startswith("checkpoint.every_steps: checkpoints are not written")


def test_a_slower_adam_is_told(plan):
    offloaded = {"stage": 2, "offload_optimizer": "cpu"}
    (note,) = plan(zero=offloaded, cpu_adam=False).notes
    assert note.startswith("no C++ compiler: the offloaded optimizer runs as torch's Adam")
    assert plan(zero=offloaded, cpu_adam=False, training={"optimizer": {"name": "sgd"}}).notes == ()


@pytest.mark.parametrize("as_file", [False, True])
def test_a_profiler_that_spoils_the_times_is_told(plan, tmp_path, as_file):
    given = {"flops_profiler": {"enabled": True}}
    (tmp_path / "ds.json").write_text(json.dumps(given), encoding="utf-8")
    (note,) = plan(deepspeed="ds.json" if as_file else given).notes
    assert note.startswith("deepspeed.flops_profiler slows every step")
    assert plan(deepspeed={"flops_profiler": {"enabled": False}}).notes == ()


def test_fp16_on_a_cpu_is_refused_at_its_place(plan):
    message = r"job\.yaml:4:\d+: training\.precision: fp16 needs a GPU .* set bf16 or fp32"
    with pytest.raises(SpecError, match=message):
        plan(training={"precision": "fp16"})


def test_fp16_on_a_gpu_is_planned(plan):
    made = plan(machine=GPUS, training={"precision": "fp16"})
    assert made.deepspeed["fp16"] == {"enabled": True}
    assert made.resources.device == "cuda"


LION = {"optimizer": {"name": "lion"}}


def test_lion_on_a_cpu_is_refused_at_its_place_unless_it_is_offloaded(plan):
    message = (
        r"job\.yaml:4:\d+: training\.optimizer\.name: lion needs a GPU or "
        r"zero\.offload_optimizer: cpu, .*; set zero\.offload_optimizer: cpu at stage 1 to 3, or"
    )
    for zero in ({"stage": 0}, {"stage": 2}, {"stage": 3, "offload_params": "cpu"}):
        with pytest.raises(SpecError, match=message):
            plan(training=LION, zero=zero)
    with pytest.raises(SpecError, match="lion needs a GPU or"):
        plan(machine=GPUS, training=LION, resources={"device": "cpu"})


def test_lion_without_a_compiler_is_refused_at_its_place(plan):
    message = (
        r"job\.yaml:4:\d+: training\.optimizer\.name: lion has to be compiled and there is no "
        r"C\+\+ compiler; install g\+\+ .* or choose another optimizer"
    )
    with pytest.raises(SpecError, match=message):
        plan(training=LION, zero={"stage": 2, "offload_optimizer": "cpu"}, cpu_adam=False)
    with pytest.raises(SpecError, match=message):
        plan(machine=GPUS, training=LION, cpu_adam=False)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_lion_on_a_gpu_runs_in_its_kernel_there(plan, stage):
    made = plan(machine=GPUS, training=LION, zero={"stage": stage})
    assert made.compiled_ops == ("fused_lion",)
    assert made.deepspeed["optimizer"]["type"] == "Lion"


def test_all_that_a_cpu_denies_is_told_at_once(plan):
    with pytest.raises(SpecError, match="fp16 needs a GPU") as error:
        plan(training={"precision": "fp16", **LION})
    keys = [problem.key for problem in error.value.problems]
    assert keys == ["training.precision", "training.optimizer.name"]


def test_fp16_on_the_cpu_of_a_gpu_machine_is_refused(plan):
    with pytest.raises(SpecError, match="fp16 needs a GPU and this run is on the CPU"):
        plan(machine=GPUS, training={"precision": "fp16"}, resources={"device": "cpu"})


def test_a_batch_that_does_not_divide_is_refused_at_its_place(plan):
    message = r"job\.yaml:4:\d+: training\.global_batch_size: 15 does not divide .* 8 and 16"
    with pytest.raises(SpecError, match=message):
        plan(training={"global_batch_size": 15})


def test_a_model_that_does_not_fit_the_data_is_refused_at_its_place(plan):
    with pytest.raises(SpecError, match=r"job\.yaml:2:\d+: model\.config\.input_size: one image"):
        plan(model={"family": "mlp", "config": {"input_size": 65}})


def test_sizes_that_a_data_factory_leaves_open_are_asked_for_all_at_once(plan):
    with pytest.raises(SpecError, match="missing; a data factory does not tell it") as error:
        plan(data={"factory": "mine:build"})
    keys = [problem.key for problem in error.value.problems]
    assert keys == ["model.config.input_size", "model.config.num_labels"]
    model = {"family": "mlp", "config": {"input_size": 4, "num_labels": 2, "hidden_sizes": [3]}}
    made = plan(model=model, data={"factory": "mine:build"})
    assert made.n_params == 5 * 3 + 4 * 2


def test_too_many_workers_are_refused(plan):
    with pytest.raises(InfeasibleError, match="9 workers x 1 CPUs need 9 CPUs and this machine"):
        plan(resources={"workers": 9}, training={"global_batch_size": 36})


def test_the_device_and_not_the_machine_decides_on_pinned_memory(plan):
    zero = {"stage": 1, "offload_optimizer": "cpu"}
    for device, pinned in (("auto", True), ("cpu", False)):
        made = plan(machine=GPUS, zero=zero, resources={"device": device})
        assert made.deepspeed["zero_optimization"]["offload_optimizer"]["pin_memory"] is pinned


def test_a_factory_must_be_counted_first(plan):
    factory = {"factory": "mine:build"}
    with pytest.raises(ValueError, match="must be counted before it can be planned"):
        plan(model=factory)
    made = plan(model=factory, n_params=8_000_000, zero={"stage": 1})
    assert made.n_params == 8_000_000
    assert made.deepspeed["zero_optimization"]["reduce_bucket_size"] == 1_000_000


def test_a_plan_survives_the_way_to_another_process(plan):
    made = plan(zero={"stage": 3, "offload_optimizer": "cpu"}, deepspeed={"aio": {}})
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_plan_cannot_be_changed(plan):
    with pytest.raises(FrozenInstanceError, match="strategy"):
        plan().strategy = "zero3"


def test_the_json_form_is_plain_and_complete(plan):
    made = plan(zero={"stage": 2}, checkpoint={"every_steps": 5})
    values = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert values["name"] == "small"
    assert values["strategy"] == "zero2"
    assert values["batch"] == {
        "global_batch_size": 16,
        "micro_batch_size": 4,
        "accumulation_steps": 2,
        "workers": 2,
    }
    assert values["resources"] == {
        "workers": 2,
        "device": "cpu",
        "cpus_per_worker": 1,
        "gpus_per_worker": 0,
        "placement": "pack",
    }
    assert values["deepspeed"] == made.deepspeed
    assert values["job"]["model"]["config"]["input_size"] == 64
    assert values["notes"] == list(made.notes)
    assert values["forecast"] is None


def test_one_job_and_one_machine_give_one_plan(write_job):
    job = write_job(zero={"stage": 3})
    assert make_plan(job, machine=GPUS) == make_plan(job, machine=GPUS)
