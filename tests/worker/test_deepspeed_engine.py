"""DeepSpeed in two real processes against plain torch: one job, one answer."""

import math
from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.data.order import step_indices
from orchestrator.models.build import build_model

pytestmark = pytest.mark.ray

STEPS = 20
# The learning rate moves, so that equal losses also say that the schedule arrived.
TRAINING = {
    "steps": STEPS,
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "schedule": {"name": "cosine", "warmup_steps": 3},
}
CNN = {"model": {"family": "cnn", "config": {"channels": [16, 32]}}, "training": TRAINING}
GPT2 = {
    "model": {"family": "gpt2", "config": {"n_embd": 32, "n_layer": 2, "n_head": 2}},
    "data": {"source": "text", "sequence_length": 32, "max_bytes": 200_000},
    "training": TRAINING,
}
RESNET = {
    "model": {
        "family": "resnet",
        "config": {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]},
    },
    "training": TRAINING,
}
# DeepSpeed leaves what is under 1 MiB in memory; two of these layers are 4 MiB.
WIDE = {
    "model": {"family": "mlp", "config": {"hidden_sizes": [1024, 1024, 1024]}},
    "training": {**TRAINING, "steps": 8},
}
OFFLOADED = [
    {"stage": 1, "offload_optimizer": "cpu"},
    {"stage": 2, "offload_optimizer": "cpu"},
    {"stage": 3, "offload_optimizer": "cpu"},
    {"stage": 3, "offload_params": "cpu"},
    {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"},
]


def job(base, *, zero=None, **training):
    return {**base, "training": {**base["training"], **training}, "zero": zero or {"stage": 0}}


def short(value):
    return "-".join(str(part) for part in value.values())


@pytest.fixture
def losses(train):
    def of(changes):
        outcome = train(**changes)
        assert outcome.errors == {}
        found = outcome.losses()
        assert len(found) == changes["training"]["steps"]
        return found

    return of


@pytest.mark.parametrize("base", [CNN, GPT2], ids=["cnn", "gpt2"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_has_the_losses_of_plain_torch(losses, base, stage):
    plain = losses(job(base, engine="torch"))
    assert plain[-1] < 0.95 * plain[0]
    assert losses(job(base, zero={"stage": stage})) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("zero", OFFLOADED, ids=short)
def test_offload_to_the_host_has_the_losses_of_plain_torch(losses, zero):
    plain = losses(job(CNN, engine="torch"))
    assert losses(job(CNN, zero=zero)) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize(
    "offload",
    [
        {"offload_optimizer": "nvme"},
        {"offload_params": "nvme"},
        {"offload_optimizer": "nvme", "offload_params": "nvme"},
        {"offload_optimizer": "cpu", "offload_params": "nvme"},
        {"offload_optimizer": "nvme", "offload_params": "cpu"},
    ],
    ids=lambda offload: "-".join(f"{key}-{value}" for key, value in offload.items()),
)
def test_offload_to_nvme_has_the_losses_of_plain_torch(train, offload, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "nvme"
    path.mkdir(exist_ok=True)
    plain = train(**job(WIDE, engine="torch"))
    found = train(**job(WIDE, zero={"stage": 3, "nvme_path": str(path), **offload}))
    assert (plain.errors, found.errors) == ({}, {})
    assert found.losses() == pytest.approx(plain.losses(), rel=1e-4)
    assert max(sample.nvme_bytes or 0 for sample in found.samples()) > 2**20
    assert [file for file in path.rglob("*") if file.is_file()] == [], "swap files were left"


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize(
    "zero",
    [{"stage": 0}, {"stage": 2}, {"stage": 2, "offload_optimizer": "cpu"}, {"stage": 3}],
    ids=short,
)
def test_every_optimizer_is_that_of_torch(losses, optimizer, zero):
    settings = {"name": optimizer, "lr": 2e-3, "weight_decay": 0.05}
    if optimizer in ("sgd", "rmsprop"):
        settings["momentum"] = 0.9
    changed = {"steps": 6, "optimizer": settings}
    plain = losses(job(CNN, engine="torch", **changed))
    assert losses(job(CNN, zero=zero, **changed)) == pytest.approx(plain, rel=1e-4)


ADAFACTOR = {"optimizer": {"name": "adafactor", "lr": 0.05}, "schedule": {"name": "constant"}}


@pytest.mark.parametrize(
    "zero",
    [*({"stage": stage} for stage in (0, 1, 2, 3)), {"stage": 2, "offload_optimizer": "cpu"}],
    ids=short,
)
def test_adafactor_learns_in_every_stage(losses, zero):
    found = losses(job(CNN, zero=zero, **ADAFACTOR))
    assert sum(found[-3:]) < 0.95 * sum(found[:3])


def test_adafactor_is_that_of_torch_where_it_sees_whole_weights_and_only_there(losses):
    plain = losses(job(CNN, engine="torch", **ADAFACTOR))
    assert losses(job(CNN, **ADAFACTOR)) == pytest.approx(plain, rel=1e-5)
    # A shard is one flat vector: equal only before the first update.
    sharded = losses(job(CNN, zero={"stage": 2}, **ADAFACTOR))
    assert sharded[0] == pytest.approx(plain[0], rel=1e-5)
    assert sharded[1] != pytest.approx(plain[1], rel=1e-3)


def lion_losses(made):
    """Lion on whole batches in this process, from its paper: arXiv:2302.06675, algorithm 2."""
    section = made.spec.training.optimizer
    lr, decay, (beta_1, beta_2) = section.lr, section.weight_decay, section.betas
    samples = build_data(made.spec.data, folder=Path()).train
    torch.manual_seed(0)
    model = build_model(made.spec.model, folder=Path())
    means = [torch.zeros_like(weight) for weight in model.parameters()]
    for step in range(made.spec.training.steps):
        indices = step_indices(len(samples), seed=0, step=step, global_batch_size=16)
        loss = model(**samples.batch(indices)).loss
        yield loss.item()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for weight, mean, gradient in zip(model.parameters(), means, gradients, strict=True):
                update = torch.lerp(gradient, mean, beta_1).sign()
                weight.sub_(lr * (update + decay * weight))
                mean.lerp_(gradient, 1 - beta_2)


@pytest.mark.parametrize("stage", [1, 3])
def test_an_offloaded_lion_is_that_of_its_paper_and_learns(losses, plan, stage):
    settings = {"name": "lion", "lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.1}
    zero = {"stage": stage, "offload_optimizer": "cpu"}
    changed = job(CNN, zero=zero, optimizer=settings, schedule={"name": "constant"})
    found = losses(changed)
    assert found == pytest.approx(list(lion_losses(plan(**changed))), rel=1e-3)
    assert sum(found[-3:]) < 0.95 * sum(found[:3])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_clipping_and_the_norm_are_those_of_plain_torch(train, stage):
    changed = {"steps": 6, "gradient_clipping": 0.05, "optimizer": {"name": "sgd", "lr": 1.0}}
    plain = train(**job(CNN, engine="torch", **changed))
    found = train(**job(CNN, zero={"stage": stage}, **changed))
    assert (plain.errors, found.errors) == ({}, {})
    assert found.losses() == pytest.approx(plain.losses(), rel=1e-5)
    norms = [sample.grad_norm for sample in plain.samples()]
    # Every step was clipped, and the norm told is the one before.
    assert all(norm > 0.05 for norm in norms)
    for rank in (0, 1):
        assert [s.grad_norm for s in found.samples(rank)] == pytest.approx(norms, rel=1e-4)


def test_without_clipping_large_gradients_pass(losses):
    changed = {"steps": 6, "optimizer": {"name": "sgd", "lr": 1.0}}
    clipped = losses(job(CNN, engine="torch", gradient_clipping=0.05, **changed))
    plain = losses(job(CNN, engine="torch", **changed))
    assert plain[1:] != pytest.approx(clipped[1:], rel=1e-3)
    assert losses(job(CNN, zero={"stage": 2}, **changed)) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("base", [CNN, GPT2, RESNET], ids=["cnn", "gpt2", "resnet"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_learns_in_every_stage(losses, base, stage):
    found = losses(job(base, zero={"stage": stage}, precision="bf16"))
    plain = losses(job(base, engine="torch"))
    assert all(map(math.isfinite, found))
    # bf16 has 8 bits: near, and not the same
    assert found[0] == pytest.approx(plain[0], rel=0.02)
    assert sum(found[-3:]) < 0.95 * sum(found[:3])
    assert found != plain


@pytest.mark.parametrize("zero", [{"stage": 1}, {"stage": 2}, {"stage": 3}], ids=short)
def test_bf16_learns_with_an_offloaded_optimizer(losses, zero):
    found = losses(job(CNN, zero={**zero, "offload_optimizer": "cpu"}, precision="bf16"))
    assert sum(found[-3:]) < 0.95 * sum(found[:3])


@pytest.mark.parametrize("base", [CNN, GPT2], ids=["cnn", "gpt2"])
@pytest.mark.parametrize("stage", [0, 3])
def test_activation_checkpointing_changes_no_loss(losses, base, stage):
    plain = losses(job(base, zero={"stage": stage}))
    with_it = losses(job(base, zero={"stage": stage}, activation_checkpointing=True))
    assert with_it == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("stage", [0, 3])
def test_the_schedule_reaches_the_optimizer(train, stage):
    rates = [sample.lr for sample in train(**job(CNN, zero={"stage": stage})).samples(1)]
    # by hand: a third, two thirds, the peak; then half a cosine over 18 steps
    falling = [(1 + math.cos(math.pi * n / 18)) / 2 for n in range(1, 18)]
    assert rates == pytest.approx([3e-3 * part for part in (1 / 3, 2 / 3, 1, *falling)])


def test_a_rate_of_almost_nothing_teaches_nothing(losses):
    for zero in ({"stage": 0}, {"stage": 1}, {"stage": 3}):
        slow = {"steps": 6, "optimizer": {"lr": 1e-12}, "schedule": {"name": "constant"}}
        first = losses(job(CNN, zero=zero, **slow))
        plain = losses(job(CNN, engine="torch", **slow))
        assert first == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_ranks_tell_the_same_norm_and_no_skipped_step(train, stage):
    outcome = train(**job(CNN, zero={"stage": stage}))
    first, second = outcome.samples(0), outcome.samples(1)
    assert [s.grad_norm for s in first] == pytest.approx([s.grad_norm for s in second])
    assert {s.skipped_steps for s in (*first, *second)} == {0}
    assert [s.step for s in first if s.communication_s is not None] == [3]
    assert next(s.communication_s for s in first if s.communication_s is not None) > 0


def test_the_evaluation_of_every_strategy_is_that_of_plain_torch(train):
    plain = train(**job(CNN, engine="torch")).evaluation()
    for zero in ({"stage": 0}, {"stage": 2}, {"stage": 3}):
        found = train(**job(CNN, zero=zero)).evaluation()
        assert found.n_samples == plain.n_samples
        assert found.loss == pytest.approx(plain.loss, rel=1e-4)
        assert found.accuracy == pytest.approx(plain.accuracy, abs=0.01)
