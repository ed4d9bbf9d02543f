"""Every key of a job has a section, and a wrong one leads to the right one."""

import pytest

from orchestrator.spec.data import TextData
from orchestrator.spec.job import JobSpec
from orchestrator.spec.keys import (
    DATA_KINDS,
    MODEL_KINDS,
    meant_key,
    section_at,
    split_key,
    with_value,
)
from orchestrator.spec.model import Gpt2Config
from orchestrator.spec.sections import CompareSection, OptimizerSection

VALUES = {"model": {"family": "gpt2", "config": {}}, "data": {"source": "text"}}


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ((), JobSpec),
        (("training", "optimizer"), OptimizerSection),
        (("model", "config"), Gpt2Config),
        (("data",), TextData),
        (("compare",), CompareSection),
        (("compare", "axes"), None),
        (("deepspeed",), None),
        (("training", "steps"), None),
        (("nonsense", "x"), None),
        (("model", 0), None),
    ],
)
def test_a_path_leads_to_its_section(path, section):
    assert section_at(path, VALUES) is section


def test_an_unknown_family_has_no_section():
    assert section_at(("model", "config"), {"model": {"family": "bert"}}) is None


def test_kinds_are_those_the_design_lists():
    assert set(MODEL_KINDS) == {"resnet", "gpt2", "cnn", "mlp", "factory"}
    assert set(DATA_KINDS) == {"digits", "text", "synthetic", "factory"}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        (("training", "micro_batchsize"), "training.micro_batch_size"),
        (("zero", "micro_batch_size"), "training.micro_batch_size"),
        (("train_micro_batch_size_per_gpu",), "training.micro_batch_size"),
        (("n_embd",), "model.config.n_embd"),
        (("depths",), None),
        (("qqq",), None),
        (("deepspeed", "zro"), None),
    ],
)
def test_a_wrong_key_leads_to_the_right_one(path, meant):
    assert meant_key(path, VALUES) == meant


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("name", ("name",)),
        ("zero.stage", ("zero", "stage")),
        ("compare.axes", ("compare", "axes")),
        ("compare.axes.zero.stage", ("compare", "axes", "zero.stage")),
        ("compare.variants.x", ("compare", "variants", "x")),
    ],
)
def test_dots_part_keys_but_not_those_of_axes(key, path):
    assert split_key(key) == path


def test_setting_a_value_copies_what_it_changes():
    before = {"a": {"b": 1, "c": {"d": 2}}, "e": None}
    after = with_value(with_value(before, ("a", "c", "d"), 3), ("e", "f"), 4)
    assert after == {"a": {"b": 1, "c": {"d": 3}}, "e": {"f": 4}}
    assert before == {"a": {"b": 1, "c": {"d": 2}}, "e": None}


def test_setting_below_a_number_names_the_number():
    with pytest.raises(ValueError, match=r"^a\.b$"):
        with_value({"a": {"b": 1}}, ("a", "b", "c"), 2)
