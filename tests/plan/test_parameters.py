from pathlib import Path

import pytest
import torch

from orchestrator.models.build import build_model
from orchestrator.plan.parameters import n_parameters
from orchestrator.spec.model import (
    CnnConfig,
    CnnModel,
    FactoryModel,
    Gpt2Config,
    Gpt2Model,
    MlpConfig,
    MlpModel,
    ResnetConfig,
    ResnetModel,
)


def resnet(**config):
    sizes = {"num_channels": 1, "num_labels": 10, "embedding_size": 8}
    return ResnetModel(family="resnet", config=ResnetConfig(**{**sizes, **config}))


def gpt2(**config):
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return Gpt2Model(family="gpt2", config=Gpt2Config(**{**sizes, **config}))


def cnn(**config):
    sizes = {"in_channels": 1, "num_labels": 10}
    return CnnModel(family="cnn", config=CnnConfig(**{**sizes, **config}))


def mlp(**config):
    sizes = {"input_size": 64, "num_labels": 10}
    return MlpModel(family="mlp", config=MlpConfig(**{**sizes, **config}))


MODELS = {
    "resnet": resnet(hidden_sizes=(8, 16), depths=(1, 1)),
    "resnet-narrow-stem": resnet(embedding_size=4, hidden_sizes=(8, 16), depths=(1, 1)),
    "resnet-deep": resnet(hidden_sizes=(8, 8, 16), depths=(2, 3, 1)),
    "resnet-rgb": resnet(num_channels=3, num_labels=100, hidden_sizes=(8,), depths=(1,)),
    "resnet-downsample": resnet(
        hidden_sizes=(8, 16), depths=(2, 1), downsample_in_first_stage=True
    ),
    "resnet-bottleneck": resnet(
        layer_type="bottleneck", hidden_sizes=(16, 32), depths=(2, 2), hidden_act="gelu"
    ),
    "resnet-bottleneck-downsample": resnet(
        layer_type="bottleneck",
        embedding_size=16,
        hidden_sizes=(16, 32),
        depths=(1, 2),
        downsample_in_first_stage=True,
    ),
    "resnet-default": resnet(embedding_size=32),
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(tie_word_embeddings=False),
    "gpt2-inner": gpt2(n_inner=24, n_layer=1),
    "gpt2-inner-untied": gpt2(n_inner=40, n_layer=3, tie_word_embeddings=False),
    "cnn": cnn(channels=(8, 12)),
    "cnn-one": cnn(in_channels=3, num_labels=2, channels=(7,)),
    "cnn-default": cnn(),
    "mlp": mlp(hidden_sizes=(16, 8)),
    "mlp-one": mlp(input_size=3, hidden_sizes=(1,), num_labels=2),
    "mlp-default": mlp(),
}


@pytest.mark.parametrize("section", MODELS.values(), ids=MODELS)
def test_the_count_is_that_of_the_built_model(section):
    with torch.device("meta"):
        model = build_model(section, folder=Path())
    built = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert n_parameters(section) == built


def test_gpt2_small_has_the_124_million_parameters_it_is_known_for():
    section = gpt2(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12)
    assert n_parameters(section) == 124_439_808


def test_resnet_50_has_the_25_6_million_parameters_it_is_known_for():
    section = resnet(
        num_channels=3,
        embedding_size=64,
        hidden_sizes=(256, 512, 1024, 2048),
        depths=(3, 4, 6, 3),
        layer_type="bottleneck",
        num_labels=1000,
    )
    assert n_parameters(section) == 25_557_032


def test_a_factory_is_not_counted():
    assert n_parameters(FactoryModel(factory="mine:build")) is None


@pytest.mark.parametrize("section", [mlp(input_size=None), gpt2(vocab_size=None)])
def test_a_size_still_open_is_a_programming_error(section):
    with pytest.raises(ValueError, match="filled in from the data first"):
        n_parameters(section)
