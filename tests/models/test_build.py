import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers.models.gpt2.configuration_gpt2 import GPT2Config
from transformers.models.resnet.configuration_resnet import ResNetConfig

from orchestrator.errors import UsageError
from orchestrator.models.build import build_model
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

RESNET = ResnetModel(
    family="resnet",
    config=ResnetConfig(
        num_channels=1, num_labels=10, embedding_size=8, hidden_sizes=(8, 16), depths=(2, 1)
    ),
)
CNN = CnnModel(family="cnn", config=CnnConfig(in_channels=1, channels=(8, 12), num_labels=10))
MLP = MlpModel(family="mlp", config=MlpConfig(input_size=256, hidden_sizes=(16,), num_labels=10))
GPT2 = Gpt2Model(
    family="gpt2", config=Gpt2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
)
CLASSIFIERS = [RESNET, CNN, MLP]


def build(section):
    torch.manual_seed(0)
    return build_model(section, folder=Path())


def images(n=4):
    generator = torch.Generator().manual_seed(1)
    return {
        "pixel_values": torch.randn(n, 1, 16, 16, generator=generator),
        "labels": torch.arange(n) % 10,
    }


def sequences(n=4):
    tokens = torch.randint(50, (n, 16), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens, "labels": tokens}


def n_params(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("section", CLASSIFIERS, ids=lambda section: section.family)
def test_an_untrained_classifier_guesses(section):
    output = build(section)(**images(200))
    assert output.logits.shape == (200, 10)
    assert output.loss.item() == pytest.approx(math.log(10), abs=0.5)


@pytest.mark.parametrize("section", CLASSIFIERS, ids=lambda section: section.family)
def test_without_labels_there_are_logits_but_no_loss(section):
    output = build(section)(pixel_values=images()["pixel_values"])
    assert output.loss is None
    assert output.logits.shape == (4, 10)


@pytest.mark.parametrize("section", [*CLASSIFIERS, GPT2], ids=lambda section: section.family)
def test_the_seed_alone_decides_the_weights(section):
    first, second = build(section).state_dict(), build(section).state_dict()
    torch.manual_seed(1)
    other = build_model(section, folder=Path()).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("section", [*CLASSIFIERS, GPT2], ids=lambda section: section.family)
def test_every_parameter_is_trained(section):
    model = build(section)
    model(**(sequences() if section is GPT2 else images())).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_parameters_of_a_cnn_are_those_counted_by_hand():
    # convolutions without bias 1*8*9 and 8*12*9, GroupNorm 2*8 and 2*12, head 12*10 + 10
    assert n_params(build(CNN)) == 72 + 864 + 16 + 24 + 130


def test_the_parameters_of_an_mlp_are_those_counted_by_hand():
    assert n_params(build(MLP)) == (256 * 16 + 16) + (16 * 10 + 10)


def test_the_parameters_of_a_resnet_are_those_counted_by_hand():
    stem = 1 * 8 * 49 + 16
    first_stage = 4 * (8 * 8 * 9 + 16)
    second_stage = (8 * 16 * 9 + 32) + (16 * 16 * 9 + 32) + (8 * 16 + 32)
    assert n_params(build(RESNET)) == stem + first_stage + second_stage + (16 * 10 + 10)


@pytest.mark.parametrize(("tied", "extra"), [(True, 0), (False, 50 * 16)])
def test_the_parameters_of_a_gpt2_are_those_counted_by_hand(tied, extra):
    block = 4 * 16 + (16 * 48 + 48) + (16 * 16 + 16) + (16 * 64 + 64) + (64 * 16 + 16)
    config = GPT2.config.model_copy(update={"tie_word_embeddings": tied})
    model = build(Gpt2Model(family="gpt2", config=config))
    assert n_params(model) == 50 * 16 + 16 * 16 + 2 * block + 2 * 16 + extra


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_cnn_survives_images_smaller_than_its_pooling(size):
    config = CnnConfig(in_channels=1, channels=(4, 4, 4, 4, 4), num_labels=10)
    output = build(CnnModel(family="cnn", config=config))(torch.ones(2, 1, size, size))
    assert torch.isfinite(output.logits).all()


def test_a_resnet_with_one_class_is_refused():
    config = RESNET.config.model_copy(update={"num_labels": 1})
    with pytest.raises(UsageError, match=r"num_labels 1 .* use at least 2"):
        build(ResnetModel(family="resnet", config=config))


@pytest.mark.parametrize("section", [CNN, MLP, GPT2], ids=lambda section: section.family)
def test_the_loss_of_a_batch_is_the_mean_over_its_equal_micro_batches(section):
    model = build(section).double()
    batch = sequences(6) if section is GPT2 else images(6)
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    whole = model(**batch).loss.item()
    parts = [model(**{k: v[i : i + 2] for k, v in batch.items()}).loss.item() for i in (0, 2, 4)]
    # both losses are computed in fp32
    assert sum(parts) / 3 == pytest.approx(whole, rel=1e-6)


def test_gpt2_predicts_the_next_token_and_keeps_no_cache():
    model = build(GPT2)
    batch = sequences()
    output = model(**batch)
    expected = torch.nn.functional.cross_entropy(
        output.logits[:, :-1].reshape(-1, 50), batch["input_ids"][:, 1:].reshape(-1)
    )
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.past_key_values is None
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ResnetConfig, ResNetConfig), (Gpt2Config, GPT2Config)]
)
def test_transformers_knows_every_key_of_ours(ours, theirs):
    inherited = {"num_labels"}
    known = {field.name for field in dataclasses.fields(theirs)} | inherited
    assert set(ours.model_fields) <= known
    assert hasattr(theirs(), "num_labels")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (ResnetModel(family="resnet"), "resnet: num_channels and num_labels must be filled in"),
        (Gpt2Model(family="gpt2"), "gpt2: vocab_size and n_positions must be filled in"),
        (CnnModel(family="cnn"), "cnn: in_channels and num_labels must be filled in"),
        (MlpModel(family="mlp"), "mlp: input_size and num_labels must be filled in"),
        (
            Gpt2Model(
                family="gpt2",
                config=Gpt2Config(vocab_size=9, n_positions=8, n_embd=10, n_head=4),
            ),
            "must be divisible by num_heads",
        ),
        (
            ResnetModel(
                family="resnet",
                config=ResnetConfig(num_channels=1, num_labels=2, hidden_sizes=(8,), depths=(1, 1)),
            ),
            "one entry a stage",
        ),
    ],
)
def test_sizes_that_are_open_or_do_not_fit_are_a_programmers_error(section, message):
    with pytest.raises(ValueError, match=message):
        build_model(section, folder=Path())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "returned a int; return a torch.nn.Module"),
        ("return torch.nn.ReLU()", "returned a ReLU without trainable parameters"),
        ("return torch.nn.Linear('a', 1)", r"raised TypeError: .*\.py:3\)"),
    ],
)
def test_a_factory_that_returns_nothing_to_train_is_refused(tmp_path, body, message):
    name = f"user_model_{abs(hash((str(tmp_path), body)))}"
    (tmp_path / f"{name}.py").write_text(f"import torch\ndef build():\n    {body}\n")
    with pytest.raises(UsageError, match=message):
        build_model(FactoryModel(factory=f"{name}:build"), folder=tmp_path)


def test_a_factory_model_is_built_with_its_config(tmp_path):
    name = f"user_model_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(
        "import torch\ndef build(width):\n    return torch.nn.Linear(width, 2)\n"
    )
    section = FactoryModel(factory=f"{name}:build", config={"width": 5})
    assert build_model(section, folder=tmp_path).weight.shape == (2, 5)
