"""Rules across keys: what they must let pass (what they refuse is in `test_bad_jobs`)."""

import pytest

from orchestrator.spec.load import load_job
from orchestrator.spec.rules import contradictions, idle_settings

RUN = "training: {steps: 10, global_batch_size: 8, %s}"


@pytest.mark.parametrize(
    "changes",
    [
        "training: {epochs: 1, micro_batch_size: 8}",
        "training: {steps: 1, micro_batch_size: 2, gradient_accumulation_steps: 2}",
        "training: {steps: 1, epochs: null, global_batch_size: 8}",
        "zero: {stage: 3, offload_params: cpu, offload_optimizer: cpu}",
        "zero: {stage: 1, offload_optimizer: cpu}",
        "zero: {stage: 2, offload_optimizer: cpu}",
        "zero: {stage: 3, offload_optimizer: nvme, nvme_path: /mnt/nvme}",
        "zero: {stage: 3, offload_params: nvme, nvme_path: /mnt/nvme}",
        RUN % "engine: torch",
        RUN % "schedule: {warmup_steps: 10}",
        RUN % "schedule: {name: linear, min_lr_ratio: 0.1}",
        RUN % "schedule: {name: constant, min_lr_ratio: 0}",
        RUN % "optimizer: {name: adamw, momentum: 0}",
        RUN % "optimizer: {name: sgd, momentum: 0.9}",
        RUN % "optimizer: {name: sgd}",
        RUN % "optimizer: {name: rmsprop, momentum: 0.9, eps: 1e-6}",
        RUN % "optimizer: {name: adam, betas: [0.9, 0.95], eps: 1e-6}",
        RUN % "optimizer: {name: adafactor, lr: 0.05, weight_decay: 0.1}",
        RUN % "engine: torch, optimizer: {name: adafactor}",
        RUN % "optimizer: {name: lion, betas: [0.9, 0.99]}",
        "model: {family: gpt2, config: {n_embd: 96, n_head: 6}}",
        "model: {family: resnet, config: {depths: [3, 4], hidden_sizes: [8, 16]}}",
        "tracking: {uri: 'http://127.0.0.1:5000'}",
        "tracking: {uri: 'https://mlflow.example.com/path'}",
        "tracking: {uri: 'sqlite:////tmp/mlflow.db'}",
        "tracking: {uri: 'postgresql+psycopg2://host/db'}",
        "tracking: {uri: 'postgresql://me@host/db'}",
        "tracking: {uri: databricks}",
        "deepspeed: ds.json",
    ],
)
def test_a_sound_job_breaks_no_rule(write_job, changes):
    spec = load_job(write_job(changes)).spec
    assert contradictions(spec) == ()
    assert idle_settings(spec) == ()


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("optimizer", ["none", "cpu", "nvme"])
@pytest.mark.parametrize("params", ["none", "cpu", "nvme"])
def test_offload_is_allowed_exactly_where_deepspeed_does_it(write_job, stage, optimizer, params):
    needs_three = params != "none" or optimizer == "nvme"
    allowed = stage == 3 or (not needs_three and (optimizer == "none" or stage > 0))
    job = load_job(write_job("zero: {stage: 3}")).spec
    zero = job.zero.model_copy(
        update={
            "stage": stage,
            "offload_optimizer": optimizer,
            "offload_params": params,
            "nvme_path": "/mnt/nvme",
        }
    )
    assert (contradictions(job.model_copy(update={"zero": zero})) == ()) is allowed


def test_a_run_can_break_several_rules_at_once(write_job):
    spec = load_job(write_job()).spec
    training = spec.training.model_copy(update={"epochs": 1, "global_batch_size": None})
    keys = [found.key for found in contradictions(spec.model_copy(update={"training": training}))]
    assert keys == ["training.epochs", "training"]
