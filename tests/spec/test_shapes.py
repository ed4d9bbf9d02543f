"""Whether data fits a model is known before anything is loaded."""

import re

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_job
from orchestrator.spec.model import ResnetConfig
from orchestrator.spec.shapes import (
    ImageShape,
    TokenShape,
    data_shape,
    fit_shapes,
    resnet_halvings,
    resolve_shapes,
)

RESNET = "model: {family: resnet, config: {%s}}"
GPT = "model: {family: gpt2, config: {%s}}"
CNN = "model: {family: cnn, config: {%s}}"
MLP = "model: {family: mlp, config: {%s}}"
DIGITS = "data: {source: digits, %s}"
IMAGES = "data: {source: synthetic, %s}"
TOKENS = "data: {source: synthetic, kind: tokens, %s}"
TEXT = "data: {source: text, %s}"


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        ("data: {source: digits}", ImageShape(channels=1, size=32, n_classes=10)),
        (DIGITS % "channels: 3, image_size: 8", ImageShape(channels=3, size=8, n_classes=10)),
        (TEXT % "sequence_length: 64", TokenShape(length=64, n_tokens=256)),
        (TOKENS % "vocab_size: 50, sequence_length: 7", TokenShape(length=7, n_tokens=50)),
        (IMAGES % "num_classes: 4, image_size: 5", ImageShape(channels=3, size=5, n_classes=4)),
        ("data: {factory: 'a:b'}", None),
    ],
)
def test_a_sample_looks_as_its_section_says(write_job, data, shape):
    assert data_shape(load_job(write_job(data)).spec) == shape


@pytest.mark.parametrize(
    ("model", "data", "sizes"),
    [
        (RESNET % "", "data: {source: digits}", {"num_channels": 1, "num_labels": 10}),
        (RESNET % "num_labels: 12", DIGITS % "channels: 3", {"num_channels": 3, "num_labels": 12}),
        (GPT % "", TEXT % "sequence_length: 64", {"vocab_size": 256, "n_positions": 64}),
        (
            GPT % "vocab_size: 300, n_positions: 512",
            TEXT % "",
            {"vocab_size": 300, "n_positions": 512},
        ),
        (
            GPT % "",
            TOKENS % "vocab_size: 9, sequence_length: 5",
            {"vocab_size": 9, "n_positions": 5},
        ),
        (CNN % "", IMAGES % "num_classes: 100", {"in_channels": 3, "num_labels": 100}),
        (MLP % "", DIGITS % "image_size: 8", {"input_size": 64, "num_labels": 10}),
        (MLP % "input_size: 3072", IMAGES % "", {"input_size": 3072, "num_labels": 10}),
    ],
)
def test_sizes_left_out_come_from_the_data(write_job, model, data, sizes):
    spec = resolve_shapes(load_job(write_job(f"{model}\n{data}")))
    assert {name: getattr(spec.model.config, name) for name in sizes} == sizes


def test_nothing_but_the_sizes_changes(write_job):
    job = load_job(write_job())
    spec = resolve_shapes(job)
    assert spec.model_dump(exclude={"model"}) == job.spec.model_dump(exclude={"model"})
    assert resolve_shapes(job) == spec
    assert fit_shapes(spec) == spec


@pytest.mark.parametrize(
    "changes",
    [
        "model: {factory: 'a:b', config: {num_labels: 1}}",
        "data: {factory: 'a:b'}",
        GPT % "" + "\ndata: {factory: 'a:b'}",
    ],
)
def test_a_factory_is_left_alone(write_job, changes):
    job = load_job(write_job(changes))
    assert resolve_shapes(job) == job.spec


@pytest.mark.parametrize(
    ("changes", "place", "key", "words"),
    [
        (
            RESNET % "num_labels: 5",
            "2:34",
            "model.config.num_labels",
            "labels 0..9 do not fit num_labels: 5; write 10, or leave it out",
        ),
        (
            CNN % "num_labels: 9",
            "2:31",
            "model.config.num_labels",
            "labels 0..9 do not fit num_labels: 9;",
        ),
        (
            MLP % "num_labels: 1",
            "2:31",
            "model.config.num_labels",
            "labels 0..9 do not fit num_labels: 1;",
        ),
        (
            RESNET % "num_channels: 3",
            "2:34",
            "model.config.num_channels",
            "the images have 1 channels, not 3; write 1,",
        ),
        (
            CNN % "in_channels: 1" + "\n" + IMAGES % "",
            "2:31",
            "model.config.in_channels",
            "the images have 3 channels, not 1;",
        ),
        (
            MLP % "input_size: 64",
            "2:31",
            "model.config.input_size",
            "one image has 1024 numbers, not 64; write 1024,",
        ),
        (
            RESNET % "" + "\n" + TEXT % "",
            "2:9",
            "model.family",
            "resnet needs images and data.source: text has tokens; use source: digits",
        ),
        (
            CNN % "" + "\n" + TOKENS % "",
            "2:9",
            "model.family",
            "data.source: synthetic has tokens; use source: digits, or kind: images",
        ),
        (
            GPT % "",
            "2:9",
            "model.family",
            "gpt2 needs tokens and data.source: digits has images; use source: text",
        ),
        (GPT % "" + "\n" + IMAGES % "", "2:9", "model.family", "or kind: tokens"),
        (
            GPT % "n_positions: 64" + "\n" + TEXT % "",
            "2:32",
            "model.config.n_positions",
            "sequences of 128 do not fit n_positions: 64;",
        ),
        (
            GPT % "vocab_size: 255" + "\n" + TEXT % "",
            "2:32",
            "model.config.vocab_size",
            "tokens 0..255 do not fit vocab_size: 255;",
        ),
        (
            DIGITS % "image_size: 8",
            "3:24",
            "data.image_size",
            "stem and stages halve an image of 8 pixels 4 times; write at least 16, or",
        ),
        (
            CNN % "channels: [1, 1, 1, 1, 1, 1]",
            "3:1",
            "data.image_size",
            "poolings halve an image of 32 pixels 6 times; write at least 64, or shorten",
        ),
    ],
)
def test_data_that_does_not_fit_is_one_line(write_job, changes, place, key, words):
    path = write_job(changes)
    job = load_job(path)
    with pytest.raises(SpecError, match=re.escape(words)) as caught:
        resolve_shapes(job)
    assert [(problem.where, problem.key) for problem in caught.value.problems] == [
        (f"{path}:{place}", key)
    ]


def test_every_misfit_is_reported_at_once(write_job):
    job = load_job(write_job(GPT % "vocab_size: 2, n_positions: 2" + "\n" + TEXT % ""))
    with pytest.raises(SpecError, match="vocab_size") as caught:
        resolve_shapes(job)
    assert len(caught.value.problems) == 2


def test_an_overridden_size_is_reported_at_the_override(write_job):
    job = load_job(write_job(), overrides=["model.config.num_labels=3"])
    with pytest.raises(SpecError, match=r"^--set model\.config\.num_labels=3: model\.config\.num"):
        resolve_shapes(job)


def test_batch_norm_needs_two_values(write_job):
    image = "data: {source: synthetic, image_size: %d}\ntraining: {steps: 1, micro_batch_size: %d}"
    path = write_job(image % (16, 1))
    with pytest.raises(SpecError, match=r"4:22: training\.micro_batch_size: an image of 16 pixels"):
        resolve_shapes(load_job(path))
    resolve_shapes(load_job(write_job(image % (17, 1))))
    resolve_shapes(load_job(write_job(image % (16, 2))))


@pytest.mark.parametrize(
    ("model", "smallest"),
    [
        (RESNET % "", 16),
        (RESNET % "downsample_in_first_stage: true", 32),
        (RESNET % "hidden_sizes: [8], depths: [1]", 4),
        (CNN % "", 4),
        (CNN % "channels: [8, 8, 8]", 8),
    ],
)
def test_the_smallest_image_is_one_pixel_at_the_end(write_job, model, smallest):
    fits = write_job(model + "\n" + IMAGES % f"image_size: {smallest}")
    resolve_shapes(load_job(fits))
    too_small = write_job(model + "\n" + IMAGES % f"image_size: {smallest - 1}")
    with pytest.raises(SpecError, match=f"write at least {smallest}"):
        resolve_shapes(load_job(too_small))


def test_resnet_50_halves_an_image_five_times():
    # 224 pixels become 7 (He et al., arXiv:1512.03385, table 1).
    config = ResnetConfig(hidden_sizes=(256, 512, 1024, 2048), depths=(3, 4, 6, 3))
    assert 224 // 2 ** resnet_halvings(config) == 7


def test_a_mountain_of_stages_does_not_hang(write_job):
    many = ", ".join(["1"] * 5000)
    job = load_job(write_job(CNN % f"channels: [{many}]"))
    with pytest.raises(SpecError, match=r"5000 times; shorten model\.config's channels"):
        resolve_shapes(job)
