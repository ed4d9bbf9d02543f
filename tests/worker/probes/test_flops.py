"""Operations counted by hand: two for each multiplication with its addition."""

from pathlib import Path

import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.worker.probes.flops import count_flops, measured_gemm_flops_per_s
from orchestrator.worker.probes.speed import find_speed

USER_CODE = """
import torch

class Looks(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def forward(self, x, labels=None):
        if x.sum() > 0:
            x = x + 1
        return self.layer(x)

class Adds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = torch.nn.Parameter(torch.zeros(2))
    def forward(self, x, labels=None):
        return x[:, :2] + self.offset

def looks():
    return Looks()

def adds():
    return Adds()
"""


@pytest.fixture
def count(plan):
    """Count the operations of one micro-batch of a job."""

    def counted(*, n_samples, **sections):
        made = plan(**sections)
        batch = build_data(made.spec.data, folder=made.folder).train.batch(range(n_samples))
        return count_flops(made.spec.model, batch, folder=made.folder)

    return counted


def test_a_perceptron_s_operations_are_those_by_hand(count):
    counted = count(
        n_samples=5,
        model={"family": "mlp", "config": {"hidden_sizes": [30]}},
        data={"source": "digits", "image_size": 8},
    )
    first, second = 2 * 5 * 64 * 30, 2 * 5 * 30 * 10
    # Forward; the gradient of each weight; the gradient of what the second layer reads.
    assert counted == (first + second) + (first + second) + second


def test_a_transformer_s_operations_are_those_of_the_palm_paper(count):
    width, layers, length, vocabulary, n_samples = 32, 2, 64, 256, 3
    counted = count(
        n_samples=n_samples,
        model={"family": "gpt2", "config": {"n_embd": width, "n_layer": layers, "n_head": 2}},
        data={"source": "text", "sequence_length": length, "max_bytes": 100_000},
    )
    # Chowdhery et al., appendix B: 6 for each weight that multiplies, 12 L H Q T for attention.
    multiplying = layers * 12 * width**2 + vocabulary * width
    per_token = 6 * multiplying + 12 * layers * width * length
    assert counted == per_token * n_samples * length


def test_a_convolution_s_operations_are_those_by_hand(count):
    counted = count(
        n_samples=2,
        model={"family": "cnn", "config": {"channels": [4]}},
        data={"source": "digits", "image_size": 8},
    )
    convolution = 2 * 2 * 8 * 8 * 4 * 9
    head = 2 * 2 * 4 * 10
    # The first layer's input needs no gradient.
    assert counted == 2 * convolution + 3 * head


def test_recomputation_is_no_work_of_the_model(count):
    model = {"family": "gpt2", "config": {"n_embd": 32, "n_layer": 2, "n_head": 2}}
    data = {"source": "text", "sequence_length": 32, "max_bytes": 100_000}
    plain = count(n_samples=2, model=model, data=data)
    again = count(n_samples=2, model=model, data=data, training={"activation_checkpointing": True})
    assert plain == again


def test_counting_leaves_the_random_generator_as_it_was(count):
    state = torch.get_rng_state()
    count(n_samples=2, model={"family": "mlp"}, data={"source": "digits", "image_size": 8})
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("factory", ["looks", "adds"])
def test_a_model_whose_operations_cannot_be_known_has_none(plan, write_module, factory):
    write_module("users_models", USER_CODE)
    made = plan(
        model={"factory": f"users_models:{factory}", "config": {}},
        data={"source": "digits", "image_size": 8},
        n_params=10,
    )
    batch = {"x": torch.ones(3, 4), "labels": torch.zeros(3, dtype=torch.long)}
    assert count_flops(made.spec.model, batch, folder=made.folder) is None


def test_a_large_product_reaches_what_a_cpu_can_reach():
    reached = measured_gemm_flops_per_s(torch.float32)
    # Between a slow core without vector units and a large server.
    assert 1e9 < reached < 1e14


def test_a_rank_s_speed_is_of_all_its_micro_batches_and_says_where_the_peak_is_from(plan):
    sections = {
        "model": {"family": "mlp", "config": {"hidden_sizes": [30]}},
        "data": {"source": "digits", "image_size": 8},
    }
    made = plan(**sections, training={"global_batch_size": 24, "micro_batch_size": 4})
    batch = build_data(made.spec.data, folder=Path(made.folder)).train.batch(range(4))
    speed = find_speed(
        made,
        batch,
        model=torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)),
        draws_random=None,
        device=torch.device("cpu"),
        rank=1,
    )
    one = count_flops(made.spec.model, batch, folder=made.folder)
    assert one is not None
    assert speed.model_flops == 3 * one
    assert speed.rank == 1
    assert speed.batch_norm is True
    assert speed.peak_source is not None
    assert speed.peak_source.startswith("measured: fp32 product")
