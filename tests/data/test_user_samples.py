import re

import numpy as np
import pytest
import torch

from orchestrator.data.build import build_data
from orchestrator.data.samples import TensorTable, UserSamples
from orchestrator.errors import UsageError
from orchestrator.spec.data import FactoryData

GOOD = "[{'pixel_values': torch.ones(2) * i, 'labels': i} for i in range(4)]"


@pytest.fixture
def build(tmp_path):
    """Build data from a factory whose body is given."""

    def build_from(body):
        # A module is imported once in a process, so each test needs a name of its own.
        name = f"user_data_{abs(hash((str(tmp_path), body)))}"
        (tmp_path / f"{name}.py").write_text(f"import torch\ndef build():\n    {body}\n")
        return build_data(FactoryData(factory=f"{name}:build"), folder=tmp_path)

    return build_from


def test_items_are_stacked_in_the_order_of_the_indices(build):
    data = build(f"return {{'train': {GOOD}, 'eval': {GOOD}}}")
    batch = data.train.batch(np.array([2, 0]))
    assert batch["pixel_values"].tolist() == [[2, 2], [0, 0]]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["labels"].dtype == torch.int64
    assert len(data.eval) == 4


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", 'returned a int; return {"train": dataset, "eval": dataset}'),
        (f"return {{'train': {GOOD}}}", "returned a dict with the keys ['train']; return"),
        (
            f"return {{'train': [], 'eval': {GOOD}}}",
            "train dataset is empty; it needs at least one",
        ),
        (f"return {{'train': {GOOD}, 'eval': []}}", "eval dataset is empty"),
        (f"return {{'train': iter({GOOD}), 'eval': {GOOD}}}", "without __getitem__; return a map-"),
        (f"return {{'train': [1], 'eval': {GOOD}}}", "sample 0 is a int; return a dict of tensors"),
        (
            f"return {{'train': [{{}}], 'eval': {GOOD}}}",
            "sample 0 is a dict; return a dict of tens",
        ),
        (
            f"return {{'train': [{{'text': 'a'}}], 'eval': {GOOD}}}",
            "'text' of sample 0 is a str; make it a tensor",
        ),
    ],
)
def test_what_is_no_pair_of_datasets_is_refused_before_training(build, body, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        build(body)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_raises_names_the_sample_and_the_line(build):
    body = (
        "return {'train': Broken(), 'eval': Broken()}\n"
        "class Broken:\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, i): return {'x': [1.0][i + 1]}"
    )
    with pytest.raises(
        UsageError, match=r"train dataset: reading sample 0 raised IndexError: .*\.py:6\)"
    ):
        build(body)


def test_samples_of_two_shapes_are_named():
    samples = UserSamples([{"x": torch.ones(2)}, {"x": torch.ones(3)}], name="train dataset")
    with pytest.raises(
        UsageError,
        match=r"'x' has shape \[3\] in sample 1 and \[2\] in sample 0; pad or crop to one shape",
    ):
        samples.batch([0, 1])


def test_samples_with_other_keys_are_named():
    samples = UserSamples([{"x": 1}, {"y": 1}], name="train dataset")
    with pytest.raises(UsageError, match=r"sample 1 has keys \['y'\], sample 0 has \['x'\]"):
        samples.batch([0, 1])


def test_a_table_with_columns_of_two_lengths_is_refused():
    with pytest.raises(ValueError, match=r"columns of one length are needed, these have \[2, 3\]"):
        TensorTable({"x": torch.ones(2), "labels": torch.ones(3)})


def test_a_table_gives_rows_of_every_column():
    table = TensorTable({"x": torch.arange(6).reshape(3, 2), "labels": torch.arange(3)})
    batch = table.batch([2, 0])
    assert batch["x"].tolist() == [[4, 5], [0, 1]]
    assert batch["labels"].tolist() == [2, 0]
    assert len(table) == 3
