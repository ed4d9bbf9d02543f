"""What a bare model needs, traced without values, and its forecast against real ranks."""

from pathlib import Path

import pytest
import torch
from torch import nn

from orchestrator.forecast.activations import trace_at
from orchestrator.forecast.closed_form import closed_form
from orchestrator.forecast.profile import ModelProfile
from orchestrator.models.build import build_model
from orchestrator.plan.forecast_setup import setup_of
from orchestrator.spec.model import CnnConfig, CnnModel, Gpt2Config, Gpt2Model, MlpConfig, MlpModel
from orchestrator.worker.probes.flops import count_flops
from orchestrator.worker.profile import NotTraceableError, trace_model

pytestmark = pytest.mark.ray

MLP = MlpModel(
    family="mlp", config=MlpConfig(input_size=64, hidden_sizes=(1000, 900), num_labels=10)
)
CNN = CnnModel(family="cnn", config=CnnConfig(in_channels=1, channels=(8, 12), num_labels=10))
GPT2 = Gpt2Model(
    family="gpt2", config=Gpt2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
)
IMAGES = {"pixel_values": torch.zeros(1, 1, 8, 8), "labels": torch.zeros(1, dtype=torch.int64)}
TOKENS = torch.zeros(1, 16, dtype=torch.int64)
SEQUENCES = {"input_ids": TOKENS, "labels": TOKENS}


def trace(section, batch=IMAGES, *, build=None, **changes):
    return trace_model(
        build or (lambda: build_model(section, folder=Path())),
        batch,
        **{
            "micro_batch_sizes": (4, 8),
            "precision": "fp32",
            "activation_checkpointing": False,
            "loss": "cross_entropy",
            "scratch": False,
            **changes,
        },
    )


def test_the_trace_of_a_perceptron_is_the_accounting_by_hand():
    profile = trace(MLP)
    first = profile.traces[0]
    # four images and their labels
    batch = 4 * 64 * 4 + 4 * 8
    assert first.batch_bytes == batch
    # Backward needs both hidden layers and the log-probabilities; the loss and its weight remain.
    assert first.forward_end_bytes == batch + 4 * 1000 * 4 + 4 * 900 * 4 + 4 * 10 * 4 + 4 + 4
    # Before the second ReLU gives its input back.
    assert first.forward_peak_bytes == batch + 4 * 1000 * 4 + 2 * 4 * 900 * 4
    assert profile.n_trainable == 64 * 1000 + 1000 + 1000 * 900 + 900 + 900 * 10 + 10


def test_gradients_arrive_from_the_last_layer_to_the_first_each_once():
    profile = trace(MLP)
    layers = [arrival.parameter // 2 for arrival in profile.traces[0].arrivals]
    assert layers == [2, 2, 1, 1, 0, 0]
    numbers = sorted(arrival.parameter for arrival in profile.traces[0].arrivals)
    assert numbers == list(range(6))


def test_a_gradient_on_its_way_counts_and_one_that_has_arrived_does_not():
    moments = trace(MLP).traces[0].moments
    largest = next(m for m in moments if m.kind == "gradient" and m.subject == 2)
    assert largest.peak_bytes > 4 * 1000 * 900 > largest.held_bytes


@pytest.mark.parametrize(("section", "batch"), [(CNN, IMAGES), (GPT2, SEQUENCES)], ids=str)
def test_a_third_micro_batch_lies_on_the_line_through_two(section, batch):
    profile = trace(section, batch, micro_batch_sizes=(2, 5, 8))
    written = profile.to_json()
    two = ModelProfile.from_json({**written, "traces": written["traces"][::2]})
    between, traced = trace_at(two, 5), profile.traces[1]
    assert [m.held_bytes for m in between.moments] == [m.held_bytes for m in traced.moments]
    assert between.forward_peak_bytes == traced.forward_peak_bytes
    # The most of several lines is a line or bends upwards: between two points it lies below.
    found, real = ([m.peak_bytes for m in t.moments] for t in (between, traced))
    assert all(f >= r for f, r in zip(found, real, strict=True))
    assert max(found) == pytest.approx(max(real), rel=0.01)


def test_recomputation_leaves_less_for_backward_and_enters_blocks_again():
    plain = trace(GPT2, SEQUENCES).traces[0]
    recomputed = trace(GPT2, SEQUENCES, activation_checkpointing=True).traces[0]
    assert recomputed.forward_end_bytes < plain.forward_end_bytes / 2
    assert recomputed.flops == plain.flops
    again = [m for m in recomputed.moments if m.kind == "enter" and m.backward]
    assert again
    assert not [m for m in plain.moments if m.kind == "enter" and m.backward]


def test_half_precision_halves_hidden_layers_and_keeps_the_batch_as_it_came():
    labels, images = 4 * 8, 4 * 64 * 4
    log_probabilities_fp32, loss_and_weight = 4 * 10 * 4, 4 + 4
    hidden = 4 * 1000 * 2 + 4 * 900 * 2
    assert trace(MLP, precision="bf16").traces[0].forward_end_bytes == (
        labels + images + images // 2 + hidden + log_probabilities_fp32 + loss_and_weight
    )


def test_operations_are_those_that_are_counted_for_a_run():
    sequences = {name: value.expand(4, 16).contiguous() for name, value in SEQUENCES.items()}
    counted = count_flops(GPT2, sequences, folder=Path())
    assert counted is not None
    first, second = trace(GPT2, SEQUENCES).traces
    assert (first.flops, second.flops) == (counted, 2 * counted)


def test_buffers_are_told_apart_from_parameters():
    profile = trace(None, build=lambda: Classifier(nn.BatchNorm1d(64)))
    # running mean and variance of 64, and a count
    assert profile.buffer_bytes == 2 * 64 * 4 + 8


def test_a_tied_weight_is_one_parameter_and_building_it_took_more():
    profile = trace(GPT2, SEQUENCES)
    names = [p.name for p in profile.parameters]
    assert "lm_head.weight" not in names
    assert profile.build_peak_bytes == 4 * (profile.n_elements + 50 * 16)


def test_a_frozen_parameter_has_no_gradient():
    def build():
        model = Classifier(nn.Linear(64, 64))
        model.inner.requires_grad_(False)
        return model

    profile = trace(None, build=build)
    assert profile.n_elements - profile.n_trainable == 64 * 64 + 64
    trained = {i for i, p in enumerate(profile.parameters) if p.trainable}
    assert {arrival.parameter for arrival in profile.traces[0].arrivals} == trained


def test_modules_know_their_own_parameters():
    profile = trace(None, build=lambda: Classifier(nn.Linear(64, 64)))
    # the model itself, the inner layer, the head
    assert profile.modules == ((), (0, 1), (2, 3))
    assert profile.linears == (1, 2)


def test_what_operations_take_for_themselves_is_found_by_trying_them():
    alone, tried = (trace(CNN, scratch=scratch).traces[0] for scratch in (False, True))
    assert alone.forward_end_bytes == tried.forward_end_bytes
    assert alone.forward_peak_bytes <= tried.forward_peak_bytes


def test_a_profile_survives_being_written_down():
    profile = trace(MLP)
    assert ModelProfile.from_json(profile.to_json()).to_json() == profile.to_json()


def test_tracing_draws_no_random_numbers_and_leaves_no_values_behind():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trace(MLP)
    assert torch.equal(torch.rand(3), expected)


def test_a_model_that_looks_at_values_cannot_be_traced():
    with pytest.raises(NotTraceableError, match="cannot be run on tensors without values"):
        trace(None, build=lambda: Classifier(Looking()))


def test_a_model_without_a_loss_needs_labels():
    with pytest.raises(NotTraceableError, match="neither a loss nor logits with labels"):
        trace(None, {"pixel_values": IMAGES["pixel_values"]}, build=lambda: Classifier(nn.ReLU()))


@pytest.mark.parametrize("sizes", [(4,), (8, 4), (4, 4)])
def test_two_rising_sizes_are_needed(sizes):
    with pytest.raises(ValueError, match="two or more rising"):
        trace(MLP, micro_batch_sizes=sizes)


class Classifier(nn.Module):  # type: ignore[misc] # torch is untyped here
    """A layer and a head, returning logits."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(64, 10)

    def forward(self, pixel_values, labels=None):
        del labels
        return self.head(self.inner(pixel_values.flatten(1)))


class Looking(nn.Module):  # type: ignore[misc] # torch is untyped here
    """It wants to know."""

    def forward(self, features):
        return features if float(features.sum()) > 0 else -features


SMALL_GPT2 = {
    "model": {"family": "gpt2", "config": {"n_embd": 128, "n_layer": 4, "n_head": 4}},
    "data": {"source": "text", "sequence_length": 128, "max_bytes": 200_000},
}
RESNET = {
    "model": {
        "family": "resnet",
        "config": {"embedding_size": 32, "hidden_sizes": [64, 128, 256], "depths": [1, 1, 1]},
    },
    "data": {"source": "digits", "image_size": 32},
}


@pytest.mark.parametrize(
    ("job", "training", "zero"),
    [
        (SMALL_GPT2, {}, {"stage": 0}),
        (SMALL_GPT2, {"gradient_accumulation_steps": 4}, {"stage": 1}),
        (SMALL_GPT2, {"precision": "bf16"}, {"stage": 2, "offload_optimizer": "cpu"}),
        (SMALL_GPT2, {"activation_checkpointing": True}, {"stage": 3}),
        (RESNET, {}, {"stage": 3, "offload_optimizer": "cpu", "offload_params": "cpu"}),
    ],
    ids=str,
)
def test_the_closed_form_is_within_one_percent_of_real_ranks(train, plan, job, training, zero):
    g = training.get("gradient_accumulation_steps", 1)
    sections = {
        **job,
        "zero": zero,
        "training": {"steps": 3, "micro_batch_size": 4, "global_batch_size": 8 * g, **training},
    }
    outcome = train(**sections)
    assert outcome.errors == {}
    made = plan(**sections)
    n_threads = torch.get_num_threads()
    # What operations take for themselves depends on it; ranks have one.
    torch.set_num_threads(1)
    try:
        profile = trace(
            made.spec.model,
            SEQUENCES_128 if job is SMALL_GPT2 else IMAGES_32,
            precision=made.spec.training.precision,
            activation_checkpointing=made.spec.training.activation_checkpointing,
            scratch=True,
        )
    finally:
        torch.set_num_threads(n_threads)
    for rank in (0, 1):
        form = closed_form(setup_of(made), profile=profile, rank=rank)
        found = {phase: sum(ledger.values()) for phase, ledger in form.phase_ledgers.items()}
        measured = {**outcome.phase_peaks(rank), "init": outcome.facts(rank).init_peak_bytes}
        assert found == pytest.approx(measured, rel=0.01)
        (host_bytes,) = [s.host_bytes for s in outcome.samples(rank) if s.host_bytes is not None]
        assert sum(form.host_ledger.values()) == pytest.approx(host_bytes, rel=0.01)


TOKENS_128 = torch.zeros(1, 128, dtype=torch.int64)
SEQUENCES_128 = {"input_ids": TOKENS_128, "labels": TOKENS_128}
IMAGES_32 = {
    "pixel_values": torch.zeros(1, 1, 32, 32),
    "labels": torch.zeros(1, dtype=torch.int64),
}
