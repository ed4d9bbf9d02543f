"""The plain engine against a bare loop, to the last bit, in a process group of one."""

import math
from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.data.order import micro_batches, step_indices
from orchestrator.models.build import build_model
from orchestrator.spec.sections import OptimizerSection
from orchestrator.worker.engine import GradientNotFiniteError
from orchestrator.worker.torch_engine import TorchEngine, make_optimizer

pytestmark = pytest.mark.usefixtures("one_rank")
CPU = torch.device("cpu")
CNN = {"family": "cnn", "config": {"channels": [8]}}
RULES = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1, eps=1e-6),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01, weight_decay=0.1),
}
SETTINGS: dict[str, dict[str, object]] = {
    "adamw": {"betas": [0.8, 0.9], "eps": 1e-6},
    "adam": {"betas": [0.8, 0.9], "eps": 1e-6},
    "sgd": {"momentum": 0.9},
    "rmsprop": {"momentum": 0.9, "eps": 1e-6},
    "adafactor": {},
}


@pytest.fixture
def make(plan):
    """A plan of one rank with 2 x 4 samples a step, and its model."""

    def make_engine(**training):
        made = plan(
            model=CNN,
            training={"engine": "torch", "global_batch_size": 8, **training},
            resources={"workers": 1},
        )
        torch.manual_seed(0)
        model = build_model(made.spec.model, folder=Path())
        return made, model, TorchEngine(made, model, device=CPU)

    return make_engine


def batches(made, step):
    samples = build_data(made.spec.data, folder=Path()).train
    indices = step_indices(len(samples), seed=0, step=step, global_batch_size=8)
    cut = micro_batches(indices, rank=0, world_size=1, micro_batch_size=4)
    return [samples.batch(part) for part in cut]


@pytest.mark.parametrize("rule", RULES)
def test_training_is_that_of_a_bare_loop_to_the_last_bit(make, rule):
    optimizer = {"name": rule, "lr": 0.5, "weight_decay": 0.1, **SETTINGS[rule]}
    made, model, engine = make(optimizer=optimizer)
    torch.manual_seed(0)
    twin = build_model(made.spec.model, folder=Path())
    bare = RULES[rule](twin.parameters())
    for step in range(5):
        lr = 0.01 / (step + 1)
        for index, batch in enumerate(batches(made, step)):
            loss = engine.forward(batch)
            engine.backward(loss, last=index == 1)
            expected = twin(**batch).loss
            (expected / 2).backward()
            assert torch.equal(loss, expected)
        bare.param_groups[0]["lr"] = lr
        norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in twin.parameters()))
        bare.step()
        bare.zero_grad()
        assert engine.step(lr=lr) == pytest.approx(norm, rel=1e-5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert engine.skipped_steps() == 0
    assert not any(role.on_host for role in engine.roles())
    engine.close()


@pytest.mark.parametrize("clip", [0.01, 1000.0])
def test_clipping_shortens_the_gradient_and_reports_its_full_length(make, clip):
    sgd = {"name": "sgd", "lr": 1.0, "weight_decay": 0.0}
    made, model, engine = make(optimizer=sgd, gradient_clipping=clip)
    before = [p.detach().clone() for p in model.parameters()]
    engine.backward(engine.forward(batches(made, 0)[0]), last=True)
    norm = engine.step(lr=1.0)
    moved = math.sqrt(
        sum(
            float((p.detach() - b).pow(2).sum())
            for p, b in zip(model.parameters(), before, strict=True)
        )
    )
    assert norm > 0.01
    assert moved == pytest.approx(min(norm, clip), rel=1e-4)


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(make):
    made, model, engine = make()
    before = [p.detach().clone() for p in model.parameters()]
    batch = batches(made, 0)[0]
    batch["pixel_values"][0, 0, 0, 0] = math.nan
    engine.backward(engine.forward(batch), last=True)
    with pytest.raises(GradientNotFiniteError, match="the gradient is not finite"):
        engine.step(lr=0.1)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_prediction_uses_evaluation_mode_and_leaves_no_graph(make):
    made, model, engine = make()
    batch = batches(made, 0)[0]
    loss, logits = engine.predict(batch)
    assert not loss.requires_grad
    assert logits.shape == (4, 10)
    assert not model.training
    engine.forward(batch)
    assert model.training


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
        ("adafactor", torch.optim.Adafactor),
    ],
)
def test_the_optimizer_is_the_one_named(name, expected):
    section = OptimizerSection(name=name, lr=0.5, weight_decay=0.25)
    optimizer = make_optimizer(section, [torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is expected
    assert optimizer.defaults["lr"] == 0.5
    assert optimizer.defaults["weight_decay"] == 0.25


def test_a_lion_that_no_rule_stopped_is_not_made_an_adam():
    with pytest.raises(ValueError, match="torch has no Lion"):
        make_optimizer(OptimizerSection(name="lion"), [torch.nn.Parameter(torch.zeros(1))])
