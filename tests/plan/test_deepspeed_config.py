import json
import os
from pathlib import Path

import pytest

from orchestrator.plan.deepspeed_config import deepspeed_config, needs_cpu_adam
from orchestrator.plan.launch_plan import make_plan
from orchestrator.plan.resources import Machine
from orchestrator.spec.load import load_job

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "deepspeed"
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
# Counted by hand: stem 2x64+64, four blocks of 2x64 + (64x128+128) + (128x64+64), head 64x2+2.
FACTORY_PARAMETERS = {"mlp_factory": 192 + 4 * (128 + 8320 + 8256) + 130}

STRATEGIES = [
    *((stage, "none", "none") for stage in (0, 1, 2, 3)),
    *((stage, "cpu", "none") for stage in (1, 2, 3)),
    *(
        (3, optimizer, params)
        for optimizer in ("none", "cpu", "nvme")
        for params in ("cpu", "nvme")
    ),
    (3, "nvme", "none"),
]
N_PARAMS = 4_000_000
GPUS = Machine(n_cpus=8, n_gpus=2, name="this machine")


def zero_of(stage, optimizer, params):
    zero = {"stage": stage, "offload_optimizer": optimizer, "offload_params": params}
    return zero | ({"nvme_path": "/nvme"} if "nvme" in (optimizer, params) else {})


@pytest.fixture
def ours(plan):
    """Our part of the configuration: of a changed job, for a model of 4e6 parameters."""

    def make(*, device="cpu", cpu_adam=True, **changes):
        made = plan(**changes)
        return deepspeed_config(
            made.spec, batch=made.batch, n_params=N_PARAMS, device=device, cpu_adam=cpu_adam
        )

    return make


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_deepspeed_dict_of_every_job_is_its_golden_file(path):
    made = make_plan(
        load_job(path),
        machine=Machine(n_cpus=2, n_gpus=0, name="this machine"),
        n_params=FACTORY_PARAMETERS.get(path.stem),
    )
    golden = GOLDEN / f"{path.stem}.json"
    if os.environ.get("GOLDEN") == "1":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(made.deepspeed, indent=2) + "\n", encoding="utf-8")
    assert golden.exists(), "there is no golden file; make golden writes it"
    assert made.deepspeed == json.loads(golden.read_text(encoding="utf-8"))


def test_every_golden_file_belongs_to_a_job():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {path.stem for path in JOBS}


@pytest.mark.parametrize(("stage", "optimizer", "params"), STRATEGIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_strategy_arrives_in_the_dict(ours, stage, optimizer, params, precision):
    zero = zero_of(stage, optimizer, params)
    config = ours(device="cuda", machine=GPUS, zero=zero, training={"precision": precision})
    assert config["train_batch_size"] == 16
    assert config["train_micro_batch_size_per_gpu"] == 4
    assert config["gradient_accumulation_steps"] == 2
    switched_on = {key for key in ("bf16", "fp16") if config.get(key) == {"enabled": True}}
    assert switched_on == ({precision} - {"fp32"})
    inner = config["zero_optimization"]
    assert inner["stage"] == stage
    for block, target in (("offload_optimizer", optimizer), ("offload_param", params)):
        if target == "none":
            assert block not in inner
            continue
        assert inner[block]["device"] == target
        assert inner[block]["pin_memory"] is True
        assert inner[block].get("nvme_path") == ("/nvme" if target == "nvme" else None)
    if params == "nvme":
        assert inner["offload_param"]["max_in_cpu"] == 0
        assert inner["offload_param"]["buffer_size"] == N_PARAMS
    assert config["optimizer"]["params"]["torch_adam"] is (optimizer == "none")
    assert json.loads(json.dumps(config)) == config


def test_memory_is_not_pinned_where_there_is_no_gpu(ours):
    zero = {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"}
    inner = ours(zero=zero)["zero_optimization"]
    assert inner["offload_optimizer"]["pin_memory"] is False
    assert inner["offload_param"]["pin_memory"] is False


@pytest.mark.parametrize(("clipping", "expected"), [(None, 0.0), (0.5, 0.5)])
def test_clipping_is_off_unless_asked_for(ours, clipping, expected):
    # left out, DeepSpeed would clip at 1.0
    assert ours(training={"gradient_clipping": clipping})["gradient_clipping"] == expected


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (
            {"name": "adamw", "lr": 0.1, "weight_decay": 0.2, "betas": [0.8, 0.9], "eps": 1e-6},
            {
                "type": "AdamW",
                "params": {
                    "lr": 0.1, "weight_decay": 0.2, "betas": [0.8, 0.9], "eps": 1e-6,
                    "torch_adam": True, "adam_w_mode": True,
                },
            },
        ),
        (
            {"name": "adam", "lr": 0.1, "weight_decay": 0.0},
            {
                "type": "Adam",
                "params": {
                    "lr": 0.1, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8,
                    "torch_adam": True, "adam_w_mode": False,
                },
            },
        ),
        (
            {"name": "sgd", "lr": 0.1, "momentum": 0.9},
            {"type": "SGD", "params": {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.9}},
        ),
        (
            {"name": "rmsprop", "lr": 0.1, "eps": 1e-6},
            {
                "type": "RMSprop",
                "params": {"lr": 0.1, "weight_decay": 0.01, "momentum": 0.0, "eps": 1e-6},
            },
        ),
        (
            {"name": "adafactor", "lr": 0.1, "weight_decay": 0.2},
            {"type": "Adafactor", "params": {"lr": 0.1, "weight_decay": 0.2}},
        ),
        (
            {"name": "lion", "lr": 0.1, "betas": [0.9, 0.99]},
            {"type": "Lion", "params": {"lr": 0.1, "weight_decay": 0.01, "betas": [0.9, 0.99]}},
        ),
    ],
    ids=["adamw", "adam", "sgd", "rmsprop", "adafactor", "lion"],
)  # fmt: skip
def test_the_optimizer_keeps_its_settings(ours, optimizer, expected):
    config = ours(device="cuda", machine=GPUS, training={"optimizer": optimizer})
    assert config["optimizer"] == expected


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("optimizer", "tested"),
    # runtime/zero/utils.py, ZERO_SUPPORTED_OPTIMIZERS
    [
        ("adamw", True),
        ("adam", True),
        ("sgd", False),
        ("rmsprop", False),
        ("adafactor", False),
        ("lion", True),
    ],
)
def test_an_optimizer_deepspeed_has_not_tested_is_allowed_where_it_asks(
    ours, optimizer, tested, stage
):
    training, zero = {"optimizer": {"name": optimizer}}, {"stage": stage}
    config = ours(device="cuda", machine=GPUS, training=training, zero=zero)
    asks = stage > 0 and not tested
    assert config.get("zero_allow_untested_optimizer") is (True if asks else None)


@pytest.mark.parametrize(
    ("optimizer", "cpu_adam", "compiled"),
    [
        ("adamw", True, True),
        ("adam", True, True),
        ("adamw", False, False),
        ("sgd", True, False),
        ("adafactor", True, False),
    ],
)
def test_an_offloaded_optimizer_is_deepspeeds_only_if_it_can_be(
    ours, plan, optimizer, cpu_adam, compiled
):
    job = {
        "zero": {"stage": 2, "offload_optimizer": "cpu"},
        "training": {"optimizer": {"name": optimizer}},
    }
    config = ours(cpu_adam=cpu_adam, **job)
    assert (config["optimizer"]["params"].get("torch_adam") is False) == compiled
    assert (config.get("zero_force_ds_cpu_optimizer") is False) != compiled
    assert needs_cpu_adam(plan(**job).spec) == (optimizer in ("adam", "adamw"))


def test_an_offloaded_lion_is_deepspeeds_and_no_adam(ours, plan):
    job = {
        "zero": {"stage": 2, "offload_optimizer": "cpu"},
        "training": {"optimizer": {"name": "lion"}},
    }
    assert "zero_force_ds_cpu_optimizer" not in ours(**job)
    assert not needs_cpu_adam(plan(**job).spec)


RESNET = {"family": "resnet", "config": {"hidden_sizes": [8], "depths": [1]}}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_batch_norm_in_bf16_on_a_cpu_keeps_its_means_in_bf16(ours, stage):
    config = ours(model=RESNET, training={"precision": "bf16"}, zero={"stage": stage})
    assert config["data_types"] == {"buffer_dtype": "bf16"}


@pytest.mark.parametrize(
    ("model", "precision", "device"),
    [(RESNET, "bf16", "cuda"), (RESNET, "fp32", "cpu"), ({"family": "cnn"}, "bf16", "cpu")],
    ids=["on a GPU", "in fp32", "without batch norm"],
)
def test_buffers_are_left_alone_elsewhere(ours, model, precision, device):
    machine = {"cuda": GPUS, "cpu": Machine(n_cpus=8, n_gpus=0, name="this machine")}[device]
    training = {"precision": precision}
    assert "data_types" not in ours(model=model, training=training, device=device, machine=machine)


@pytest.mark.parametrize(
    ("given", "used"), [("fp32", "fp32"), (None, None), ("bfloat16", "bfloat16"), ("auto", "bf16")]
)
def test_the_users_own_type_of_buffers_stands(plan, given, used):
    made = plan(
        model=RESNET,
        training={"precision": "bf16"},
        deepspeed={"data_types": {"buffer_dtype": given}},
    )
    assert made.deepspeed["data_types"] == {"buffer_dtype": used}
