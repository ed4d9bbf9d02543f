"""A look at a user's own model and data: what is wrong comes back as JSON, in one line."""

import io
import itertools
import json
import sys

import pytest

from orchestrator.worker import examine as examination
from orchestrator.worker.examine import main
from tests import small_jobs

GOOD = """
import torch

class Rows(torch.utils.data.Dataset):
    def __init__(self, n_samples=32, n_classes=2):
        self.n_samples, self.n_classes = n_samples, n_classes
    def __len__(self):
        return self.n_samples
    def __getitem__(self, i):
        return {"points": torch.ones(3), "labels": i % self.n_classes}

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, 2))
    def forward(self, points, labels=None):
        return self.layers(points)

def build_model(width=4):
    print("a user's module may print")
    return Net(width)

def build_data(**config):
    return {"train": Rows(**config), "eval": Rows(**config)}

number = 3
"""


@pytest.fixture
def examine(tmp_path, write_module, request):
    """Examine a job with a module of the user's beside it; gives the answer."""

    def ask(text=GOOD, **changes):
        # Module names are taken once in a process.
        module = f"user_code_{abs(hash(request.node.name))}"
        write_module(module, text)
        named = {"model": {"factory": "user:build_model"}, "data": {"factory": "user:build_data"}}
        for name, default in named.items():
            section = dict(changes.get(name, default))
            if "factory" in section:
                section["factory"] = section["factory"].replace("user:", f"{module}:")
            changes[name] = section
        job = small_jobs.write_job(tmp_path, **changes)
        asked = {"spec": job.spec.model_dump(mode="json"), "folder": str(tmp_path)}
        answer = io.StringIO()
        main(io.StringIO(json.dumps(asked)), answer)
        *_, found = map(json.loads, answer.getvalue().splitlines())
        assert "\n" not in (found["problem"] or "")
        return found

    return ask


def replaced(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_model_is_counted(examine):
    # 3x4 + 4 and 4x2 + 2
    assert examine() == {"n_params": 26, "problem_key": None, "problem": None}


def test_the_configuration_reaches_the_factories(examine):
    found = examine(
        model={"factory": "user:build_model", "config": {"width": 10}},
        data={"factory": "user:build_data", "config": {"n_samples": 5}},
    )
    assert found["n_params"] == 3 * 10 + 10 + 10 * 2 + 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"factory": "absent_module:build"},
            "there is no module 'absent_module' in .*; put absent",
        ),
        ({"factory": "user:buld_model"}, "has no 'buld_model'; did you mean 'build_model'"),
        ({"factory": "user:number"}, "'number' is of type int, not callable; name a function"),
        ({"factory": "user:build_data"}, r"returned a dict; return a torch\.nn\.Module"),
        (
            {"factory": "user:build_model", "config": {"wdith": 3}},
            "config does not fit its parameters: got an unexpected keyword argument 'wdith'",
        ),
        (
            {"factory": "user:build_model", "config": {"width": -1}},
            r"raised RuntimeError: .*negative.*user_code_",
        ),
    ],
)
def test_a_model_factory_that_cannot_be_used_is_named(examine, model, message):
    found = examine(model=model)
    assert found["problem_key"] == "model.factory"
    assert found["n_params"] is None
    with pytest.raises(ValueError, match=message):
        raise ValueError(found["problem"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import absent_thing\n" + GOOD, "raised ModuleNotFoundError: No module named 'absent_th"),
        ("def build_model(:", "raised SyntaxError: "),
        ("1 / 0\n" + GOOD, r"raised ZeroDivisionError: division by zero \(user_code_\d+\.py:1\)"),
    ],
)
def test_a_module_that_does_not_import_is_named(examine, text, message):
    found = examine(text=text)
    # the data is looked at first
    assert found["problem_key"] == "data.factory"
    with pytest.raises(ValueError, match=message):
        raise ValueError(found["problem"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            replaced('return {"train": Rows(**config), "eval"', 'return {"train": 1, "test"'),
            r"returned a dict with the keys \['test', 'train'\]; return \{\"train\"",
        ),
        (replaced("return self.n_samples", "return 0"), "train dataset is empty"),
        (
            replaced('return {"points"', 'return 3, {"points"'),
            "sample 0 is a tuple; return a dict of tensors",
        ),
        (
            replaced("torch.ones(3)", "torch.ones(3 + i)"),
            r"'points' has shape \[4\] in sample 1 and \[3\] in sample 0; pad or crop",
        ),
        (
            replaced('"points": torch.ones(3)', '"points": open("absent.pt")'),
            r"reading sample 0 raised FileNotFoundError: .*absent\.pt",
        ),
    ],
    ids=["keys", "empty", "no dict", "shapes", "files"],
)
def test_data_that_cannot_be_used_is_named(examine, text, message):
    found = examine(text=text)
    assert found["problem_key"] == "data.factory"
    with pytest.raises(ValueError, match=message):
        raise ValueError(found["problem"])


def test_text_that_is_not_there_is_named(examine):
    found = examine(model={"family": "gpt2"}, data={"source": "text", "path": "absent.txt"})
    assert found["problem_key"] == "data.path"
    assert "absent.txt does not exist; correct it" in found["problem"]


@pytest.mark.parametrize(
    ("text", "training", "message"),
    [
        (
            replaced("def forward(self, points, labels=None)", "def forward(self, x, labels=None)"),
            {},
            r"cannot be called with the batch's keys \['labels', 'points'\]: missing a required",
        ),
        (
            replaced("return self.layers(points)", "return {'logits': self.layers(points)}"),
            {},
            r"returned dict without \.loss or \.logits; return an object",
        ),
        (
            replaced(', "labels": i % self.n_classes', ""),
            {},
            r"the batch has no labels \(it has \['points'\]\); add labels to the data",
        ),
        (
            replaced("i % self.n_classes", "i % 3"),
            {},
            "labels reach from 0 to 2 and the model has 2 classes",
        ),
        (
            replaced("i % self.n_classes", "float(i)"),
            {},
            r"labels are torch\.float32 and cross_entropy needs whole numbers",
        ),
        (
            GOOD,
            {"loss": "mse"},
            r"labels have the shape \(4,\) and the model's output has \(4, 2\); training\.loss: ",
        ),
        (
            replaced("self.layers(points)", "self.layers(points).sum(0)"),
            {},
            r"labels have the shape \(4,\) and the model's logits have \(2,\); cross_entropy needs",
        ),
        (
            replaced("torch.nn.Linear(3, width), torch.nn.Linear(width, 2)", ""),
            {},
            "without trainable parameters; there is nothing to train",
        ),
        (
            replaced("self.layers(points)", "self.layers(points)[:, labels[0].item() + 7]"),
            {},
            r"it fails on one batch: IndexError: .*out of bounds.*user_code_\d+\.py",
        ),
        (GOOD, {"activation_checkpointing": True}, "Net has no blocks to recompute; keep them in"),
    ],
    ids=[
        "names", "a dict", "no labels", "labels", "float labels", "shapes", "batch size",
        "no parameters", "its own error", "no blocks",
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_the_data_is_named(examine, text, training, message):
    found = examine(text=text, training=training)
    assert found["problem_key"] == "model.factory"
    with pytest.raises(ValueError, match=message):
        raise ValueError(found["problem"])


def test_a_model_that_needs_values_to_be_built_is_built_with_values(examine):
    text = replaced("return Net(width)", "return Net(int(torch.ones(4).sum().item()))")
    assert examine(text=text)["n_params"] == 26


def test_a_model_that_needs_values_to_run_is_run_with_values(examine):
    text = replaced(
        "return self.layers(points)", "return self.layers(points) * points.sum().item()"
    )
    assert examine(text=text) == {"n_params": 26, "problem_key": None, "problem": None}


def test_a_frozen_part_of_a_model_is_not_counted(examine):
    text = replaced(
        "return Net(width)", "n = Net(width); n.layers[0].requires_grad_(False); return n"
    )
    assert examine(text=text)["n_params"] == 10


def test_batchnorm_is_given_two_samples_where_the_size_is_open(examine):
    text = replaced(
        "torch.nn.Linear(width, 2)", "torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2)"
    )
    assert examine(text=text, training={"micro_batch_size": None})["problem"] is None


SORTED = replaced("i % self.n_classes", "int(i >= {at}) * {label}")


@pytest.mark.parametrize(
    ("n_samples", "at", "label", "reach"),
    [
        (10_000, 5_000, 2, "0 to 2"),
        (10_000, 9_999, 7, "0 to 7"),
        (10_000, 9_970, -1, "-1 to 0"),
        (33, 32, 2, "0 to 2"),
    ],
)
def test_labels_are_looked_at_all_over_data_that_is_sorted(examine, n_samples, at, label, reach):
    found = examine(
        text=SORTED.replace("{at}", str(at)).replace("{label}", str(label)),
        data={"factory": "user:build_data", "config": {"n_samples": n_samples}},
    )
    assert found["problem_key"] == "model.factory"
    message = f"labels reach from {reach} and the model has 2 classes (0 to 1); change the data or"
    assert found["problem"].startswith(message)


def test_labels_of_the_evaluation_set_are_looked_at(examine):
    text = replaced('"eval": Rows(**config)', '"eval": Rows(n_samples=64, n_classes=3)')
    assert examine(text=text)["problem"].startswith("labels reach from 0 to 2 and the model has 2")


def test_ignored_labels_are_no_classes(examine):
    text = SORTED.replace("{at}", "9").replace("{label}", "-100")
    assert examine(text=text)["problem"] is None


def test_labels_of_another_loss_are_no_classes(examine):
    text = replaced("i % self.n_classes", "torch.ones(2) * i")
    assert examine(text=text, training={"loss": "mse"})["problem"] is None


def test_sorted_labels_are_checked_against_a_built_in_model(examine):
    text = (
        SORTED.replace('"points"', '"pixel_values"').replace("{at}", "31").replace("{label}", "2")
    )
    sizes = {"input_size": 3, "num_labels": 2, "hidden_sizes": [4]}
    found = examine(text=text, model={"family": "mlp", "config": sizes})
    assert found["problem_key"] == "model"
    assert "labels reach from 0 to 2 and model.config.num_labels is 2" in found["problem"]


def test_a_sample_that_cannot_be_read_is_found_behind_the_first_batch(examine):
    text = replaced("i % self.n_classes", "[0][i > 20]")
    found = examine(text=text)
    assert found["problem_key"] == "data.factory"
    assert "raised IndexError: list index out of range (user_code_" in found["problem"]


def test_samples_of_many_shapes_can_be_trained_on_one_at_a_time(examine):
    text = replaced("torch.ones(3)", "torch.ones(1 + i, 3)").replace(
        "return self.layers(points)", "return self.layers(points).mean(1)"
    )
    training = {"global_batch_size": 2, "micro_batch_size": 1}
    assert examine(text=text, training=training)["problem"] is None


def test_slow_data_is_looked_at_for_about_a_second(tmp_path, write_module):
    text = replaced('return {"points"', 'reads.append(i); return {"points"')
    write_module("slow_rows", text + "\nreads = []\n")
    data = {"factory": "slow_rows:build_data", "config": {"n_samples": 10_000}}
    job = small_jobs.write_job(tmp_path, model={"factory": "slow_rows:build_model"}, data=data)
    seconds = itertools.count(step=0.25)
    found = examination.examine(job.spec, folder=tmp_path, clock=lambda: next(seconds))
    assert found.n_params == 26
    # Each set's first item, the first batch, and three of each set: begun, 0.25, 0.5, 0.75 s.
    looked_at = sys.modules["slow_rows"].reads[2 + 4 :]
    assert len(looked_at) == 3 + 3
    # They stand all over the set, its end included.
    assert looked_at[0] == looked_at[3] == 9_999
    assert max(looked_at[1:3]) - min(looked_at[1:3]) > 1000


def test_the_key_whose_code_runs_next_is_told_beforehand(tmp_path, write_module):
    write_module("told_code", GOOD)
    named = {"model": {"factory": "told_code:build_model"}}
    job = small_jobs.write_job(tmp_path, **named, data={"factory": "told_code:build_data"})
    told: list[str] = []
    examination.examine(job.spec, folder=tmp_path, announce=told.append)
    assert told == ["data.factory", "model.factory", "data.factory"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("i % 2", None),
        ("i % 3", "labels reach from 0 to 2 and model.config.num_labels is 2; change one of the"),
    ],
)
def test_a_users_labels_are_checked_against_a_built_in_model(examine, labels, message):
    text = replaced('"points"', '"pixel_values"').replace("i % self.n_classes", labels)
    sizes = {"input_size": 3, "num_labels": 2, "hidden_sizes": [4]}
    found = examine(text=text, model={"family": "mlp", "config": sizes})
    assert (found["problem"] is None) == (message is None)
    assert found["n_params"] == (26 if message is None else None)
    assert message is None or message in found["problem"]


def test_a_users_tokens_are_checked_against_the_vocabulary(examine):
    row = '{"input_ids": torch.arange(8), "labels": torch.arange(8)}'
    text = replaced('{"points": torch.ones(3), "labels": i % self.n_classes}', row)
    config = {"n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 1}
    for vocab_size, problem in (
        (8, None),
        (7, "input_ids reach from 0 to 7 and model.config.vocab_size is 7; change one of the two"),
    ):
        found = examine(
            text=text, model={"family": "gpt2", "config": {**config, "vocab_size": vocab_size}}
        )
        assert found["problem"] == problem


def test_a_model_that_needs_values_to_run_fails_with_values_if_it_fails(examine):
    text = replaced("self.layers(points)", "self.layers(points)[[int(points.sum().item()) + 3]]")
    found = examine(text=text)
    # two samples of three ones: there is no row 9
    assert found["problem"].startswith("it fails on one batch: IndexError: index 9 is out of bound")
