"""The training loop in real processes: one global batch however it is cut, and a clear end."""

import pytest

from orchestrator.data.order import micro_batches, step_indices

pytestmark = pytest.mark.ray

MODELS: dict[str, dict[str, object]] = {
    "cnn": {"model": {"family": "cnn", "config": {"channels": [16, 32]}}},
    "gpt2": {
        "model": {"family": "gpt2", "config": {"n_embd": 32, "n_layer": 2, "n_head": 2}},
        "data": {"source": "text", "sequence_length": 32, "max_bytes": 200_000},
    },
}
OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "adamw": {"name": "adamw", "lr": 3e-3},
}
# workers, micro-batch, stage (None: plain torch); a global batch has 16 samples
SPLITS = [(1, 4, 1), (2, 8, 0), (2, 2, 2), (4, 2, 3), (4, 4, None)]
USER_CODE = """
import torch

class Rows(torch.utils.data.Dataset):
    def __init__(self, marked, value):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(64, 4, generator=generator)
        for i in marked:
            self.x[i, 0] = value
    def __len__(self):
        return len(self.x)
    def __getitem__(self, i):
        return {"x": self.x[i], "labels": i % 2}

class Trap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, x):
        ctx.sprung = bool((x > 50).any())
        return y.clone()
    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf") if ctx.sprung else grad, None

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )
    def forward(self, x, labels=None):
        return Trap.apply(self.layers(x), x)

def build_model():
    return Net()

def build_data(marked, value):
    return {"train": Rows(marked, float(value)), "eval": Rows([], 0.0)}
"""
ENGINES = [None, 0, 1, 2, 3]


def cut(workers, micro, stage):
    return {
        "training": {
            "global_batch_size": 16,
            "micro_batch_size": micro,
            **({"engine": "torch"} if stage is None else {}),
        },
        "zero": {"stage": stage or 0},
        "resources": {"workers": workers, "cpus_per_worker": 1},
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(("workers", "micro", "stage"), SPLITS)
def test_losses_do_not_depend_on_how_a_batch_is_cut(
    train, family, optimizer, workers, micro, stage
):
    def run(*split):
        job = cut(*split)
        job["training"] |= {"steps": 12, "optimizer": OPTIMIZERS[optimizer]}
        outcome = train(**MODELS[family], **job)
        assert outcome.errors == {}
        return outcome

    whole, in_parts = run(1, 16, None), run(workers, micro, stage)
    assert in_parts.losses() == pytest.approx(whole.losses(), rel=1e-5)
    assert {s.n_samples for rank in range(workers) for s in in_parts.samples(rank)} == {
        16 // workers
    }
    evaluated, expected = in_parts.evaluation(), whole.evaluation()
    assert evaluated.n_samples == expected.n_samples
    assert evaluated.loss == pytest.approx(expected.loss, rel=1e-4)
    assert evaluated.accuracy == pytest.approx(expected.accuracy, abs=0.005)


def samples_of(*, rank, step):
    """The samples a rank of two computes in a step, from 1, of 16 out of 64."""
    indices = step_indices(64, seed=0, step=step - 1, global_batch_size=16)
    cuts = micro_batches(indices, rank=rank, world_size=2, micro_batch_size=4)
    return [int(index) for part in cuts for index in part]


def on_both_ranks(message):
    return dict.fromkeys((0, 1), f"orchestrator.worker.loop.DivergedError: {message}")


@pytest.fixture
def train_trapped(train, tmp_path_factory):
    """Train a model with one marked sample: the last that rank 1 computes in step 3."""
    # Beside the job file that `train` writes.
    folder = tmp_path_factory.getbasetemp() / "jobs0"

    def run(value, stage, **training):
        (folder / "trapped.py").write_text(USER_CODE, encoding="utf-8")
        job = cut(2, 4, stage)
        job["training"] |= {"steps": 6, **training}
        marked = samples_of(rank=1, step=3)[-1:]
        return train(
            model={"factory": "trapped:build_model"},
            data={"factory": "trapped:build_data", "config": {"marked": marked, "value": value}},
            n_params=4 * 8 + 8 + 8 * 2 + 2,
            **job,
        )

    return run


def test_no_other_step_sees_the_marked_sample():
    marked = samples_of(rank=1, step=3)[-1]
    for step in (1, 2, 3):
        for rank in (0, 1):
            assert (marked in samples_of(rank=rank, step=step)) == ((rank, step) == (1, 3))


@pytest.mark.parametrize("stage", ENGINES)
def test_a_loss_that_is_not_a_number_is_placed_the_same_in_every_strategy(train_trapped, stage):
    outcome = train_trapped("nan", stage)
    assert outcome.last_errors() == on_both_ranks("the loss is nan in step 3 on rank 1")
    assert [sample.step for sample in outcome.samples(0)] == [1, 2]
    assert [sample.step for sample in outcome.samples(1)] == [1, 2]


@pytest.mark.parametrize("stage", ENGINES)
def test_a_gradient_that_is_not_finite_ends_every_strategy_and_is_not_skipped(train_trapped, stage):
    outcome = train_trapped("100", stage)
    assert outcome.last_errors() == on_both_ranks(
        "the gradient is not finite in step 3; every rank's loss is"
    )
    assert [sample.step for sample in outcome.samples(0)] == [1, 2]
    assert {sample.skipped_steps for sample in outcome.samples(0)} == {0}


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_bf16_diverges_as_loudly(train_trapped, stage):
    for value, message in (
        ("nan", "the loss is nan in step 3 on rank 1"),
        ("100", "the gradient is not finite in step 3; every rank's loss is"),
    ):
        errors = train_trapped(value, stage, precision="bf16").last_errors()
        assert errors == on_both_ranks(message)


def test_offload_diverges_as_loudly(train, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "jobs0"
    (folder / "trapped.py").write_text(USER_CODE, encoding="utf-8")
    for zero in ({"stage": 2}, {"stage": 3}):
        job = cut(2, 4, 0)
        job["zero"] = {**zero, "offload_optimizer": "cpu"}
        marked = samples_of(rank=1, step=3)[-1:]
        outcome = train(
            model={"factory": "trapped:build_model"},
            data={"factory": "trapped:build_data", "config": {"marked": marked, "value": "nan"}},
            n_params=58,
            **job,
        )
        assert outcome.last_errors() == on_both_ranks("the loss is nan in step 3 on rank 1")
