"""`--set key=value` changes one key before checking, with the rules of the file."""

import re

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.load import load_job


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("training.steps=7", "training.steps", 7),
        (" training.steps = 7", "training.steps", 7),
        ("training.optimizer.lr=1e-3", "training.optimizer.lr", 0.001),
        ("training.optimizer.betas=[0.5, 0.9]", "training.optimizer.betas", (0.5, 0.9)),
        ("training.gradient_clipping=null", "training.gradient_clipping", None),
        ("training.activation_checkpointing=true", "training.activation_checkpointing", True),
        ("zero={stage: 3, offload_params: cpu}", "zero.offload_params", "cpu"),
        ("name=other", "name", "other"),
        ("deepspeed={a: 1=2}", "deepspeed", {"a": "1=2"}),
        ("deepspeed.zero_optimization.x=true", "deepspeed", {"zero_optimization": {"x": True}}),
        ("deepspeed=ds.json", "deepspeed", "ds.json"),
        ("model.config.num_labels=12", "model.config.num_labels", 12),
        ("compare.axes.zero.stage=[1, 2]", "compare.axes", {"zero.stage": [1, 2]}),
        ("resources.memory_budget_gib=512MiB", "resources.memory_budget_gib", 0.5),
    ],
)  # fmt: skip
def test_a_key_takes_the_value_given(write_job, override, key, value):
    at = load_job(write_job(), overrides=[override]).spec
    for part in key.split("."):
        at = getattr(at, part)
    assert at == value


def test_the_last_of_two_overrides_wins(write_job):
    job = load_job(write_job(), overrides=["training.steps=7", "training.steps=8"])
    assert job.spec.training.steps == 8
    assert job.problem("training.steps", "x").where == "--set training.steps=8"


def test_an_override_leaves_its_neighbours_alone(write_job):
    job = load_job(write_job("zero: {stage: 3, offload_params: cpu}"), overrides=["zero.stage=3"])
    assert job.spec.zero.offload_params == "cpu"


def test_an_override_mends_a_file(write_job):
    path = write_job("training: {steps: abc, global_batch_size: 8}")
    assert load_job(path, overrides=["training.steps=3"]).spec.training.steps == 3


def test_a_section_that_is_null_can_be_filled(write_job):
    job = load_job(write_job("compare: null"), overrides=["compare.axes={zero.stage: [1]}"])
    assert job.spec.compare is not None


def test_epochs_replace_steps_once_steps_are_unset(write_job):
    with pytest.raises(SpecError, match=r"--set training\.steps=null keeps epochs") as caught:
        load_job(write_job(), overrides=["training.epochs=2"])
    assert str(caught.value).startswith("--set training.epochs=2: training.epochs: steps is given")
    overrides = ["training.epochs=2", "training.steps=null"]
    assert load_job(write_job(), overrides=overrides).spec.training.epochs == 2


BAD = [
    ("training.steps", "there is no = in it; write --set key=value"),
    ("", "there is no = in it; write --set key=value"),
    ("=1", "the key is empty, or a part of it; write --set key=value"),
    ("training.=1", "the key is empty, or a part of it; write"),
    (".steps=1", "the key is empty, or a part of it; write"),
    ("training..steps=1", "the key is empty, or a part of it; write"),
    ("training. steps=1", "the key is empty, or a part of it; write"),
    ("training.steps=", "there is no value after the =; write null to unset the key"),
    ("a." * 40 + "a=1", "the key has more than 32 parts; write"),
    ("name.x=1", "name.x: name is 'small' (text), not a mapping; set name itself"),
    (
        "training.steps.x=1",
        "training.steps.x: training.steps is 10, not a mapping; set training.st",
    ),
    ("trainin.steps=1", "trainin: unknown key; did you mean 'training'?"),
    ("training.stepz=1", "training.stepz: unknown key; did you mean 'steps'?"),
    ("steps=1", "steps: unknown key; it belongs under training:"),
    ("training.steps=abc", "training.steps: expected a whole number, got 'abc' (text); write"),
    ("training.steps=1.5", "training.steps: expected a whole number, got 1.5; write digits"),
    ("training.steps=010", "training.steps: a number with a leading zero"),
    ("training.optimizer.lr=.nan", "training.optimizer.lr: not a finite number; write"),
    ("training.optimizer.lr=1e999", "training.optimizer.lr: the number is too large; write"),
    ("zero.stage=4", "zero.stage: got 4; choose one of 0, 1, 2, 3"),
    ("zero.stage=[1", "zero.stage: not valid YAML: expected ',' or ']'"),
    ("zero=null", "zero: expected a mapping, got nothing (null); leave the key out"),
    ("zero={stage: 1, stage: 2}", "zero: duplicate key, first given on line 1; keep one"),
    ("zero=*x", "zero: anchors and aliases (&, *) are not supported; write it out"),
    (
        "zero=!!python/name:x {}",
        "zero: tags such as '!!python/name:x' are not supported; remove it",
    ),
    ("name=a\n---\nb", "name: a second document; keep one"),
    ("name=\x07", "name: the character U+0007 is not allowed"),
    ("name=a\tb", "name: a tab; indent with spaces, and quote text that has tabs"),
    ("name=" + "x" * 300, "name: got 'xxx"),
    ("model.family=gpt3", "model.family: unknown family 'gpt3'; did you mean 'gpt2'?"),
    ("compare.axes.zero.stge=[1]", "compare.axes.zero.stge: unknown key; did you mean 'stage'?"),
    ("compare.axes.zero.stage=1", "compare.axes.zero.stage: expected a list, got 1; write"),
    ("compare=3", "compare: expected a mapping, got 3; write key: value"),
    ("deepspeed=1", "deepspeed: expected a mapping or the path of a JSON file, got 1; leave it"),
    (
        "zero.offload_params=cpu",
        "zero.offload_params: parameter offload needs stage 3, not 0; write",
    ),
]


@pytest.mark.parametrize(("override", "words"), BAD, ids=[case[0][:40] for case in BAD])
def test_a_bad_override_is_one_line_that_names_it(write_job, override, words):
    with pytest.raises(SpecError, match=re.escape(words)) as caught:
        load_job(write_job(), overrides=[override])
    line = str(caught.value)
    assert line.startswith("--set ")
    assert line.isprintable()
    assert len(caught.value.problems) == 1
    assert "; " in line or "?" in line


def test_a_new_model_family_shows_the_old_configuration_in_its_line(write_job):
    path = write_job("model: {family: resnet, config: {depths: [1, 1, 1]}}")
    with pytest.raises(SpecError, match=r"job\.yaml:2:34: model\.config\.depths: unknown key"):
        load_job(path, overrides=["model.family=mlp"])
