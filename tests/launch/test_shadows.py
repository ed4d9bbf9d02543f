"""Shadows of a user's own models: what cannot be told in a line, the rest all the same, once."""

import os
import re
import time

import pytest

from orchestrator.forecast.allocator_settings import AllocatorSettings
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.launch.forecasting import Forecaster, Where
from orchestrator.launch.shadows import Shadows, self_test
from orchestrator.worker.shadow.requests import ProfileRequest, ShadowRequest
from tests import small_jobs

pytestmark = pytest.mark.ray

# A Python that finds no library of its own ends before its first line.
NO_PYTHON = {"PYTHONHOME": "/nowhere"}
KNOWN_NOWHERE = Where(device=None, ranks_per_node=None, node_budget_bytes=None)
IMAGES = {"source": "synthetic", "image_size": 8, "channels": 1}
USERS = """
import os, signal
import torch
from torch import nn

MEAN = torch.full((64,), 0.5)

class Net(nn.Module):
    def __init__(self, how="well"):
        super().__init__()
        self.inner, self.head, self.how = nn.Linear(64, 32), nn.Linear(32, 10), how

    def forward(self, pixel_values, labels=None):
        x = pixel_values.flatten(1)
        x = self.inner(x - MEAN if self.how == "mean" else x)
        if self.how == "item" and x.mean().item() > 0:
            x = torch.cat([x, x])[: len(x)]
        if self.how == "if" and (x > 0).any():
            x = x * 2
        if self.how == "rows":
            x = x.index_add(0, *rows_over(x))
        return self.head(x)

def rows_over(x):
    rows = (x.sum(1) > 0).nonzero().squeeze(1)
    return rows, x[rows]

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, i):
        return {"pixel_values": torch.zeros(1, 8, 8), "labels": i % 10}

def build(how="well"):
    return Net(how)

def rows():
    return {"train": Rows(), "eval": Rows()}

def drops():
    rates = [rate.item() for rate in torch.linspace(0, 0.5, 3)]
    assert rates == [0.0, 0.25, 0.5]
    model = Net()
    model.head = nn.Sequential(nn.Dropout(rates[1]), model.head)
    return model

def raises():
    raise RuntimeError("no weights here")

def ends():
    os._exit(7)

def leaves():
    raise SystemExit("enough")

def crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

def wants_a_gpu():
    model = Net()
    model.register_buffer("scale", torch.zeros(1, device="cuda"))
    return model

def chatters():
    print("words", flush=True)
    os.system("echo more words")
    return Net()
"""
N_PARAMS = 64 * 32 + 32 + 32 * 10 + 10
VALUES = (
    r"the model's forward depends on the values of its data \(\w+: aten\.{}.*\), which a run on"
)
# Factory, its config, and how the line goes that says why there is no shadow.
REFUSED = {
    "item": ("build", {"how": "item"}, VALUES.format("_local_scalar_dense")),
    "if": ("build", {"how": "if"}, VALUES.format("_local_scalar_dense")),
    "rows": ("build", {"how": "rows"}, VALUES.format("nonzero")),
    "raises": (
        "raises",
        {},
        r"factory users:raises raised RuntimeError: no weights here \(users\.py:\d+\)$",
    ),
    "ends": ("ends", {}, r"its process ended by itself \(exit code 7\)$"),
    "leaves": ("leaves", {}, r"its process ended by itself \(exit code 1\)$"),
    "crashes": ("crashes", {}, r"its process was killed \(Segmentation fault\)$"),
    "wants_a_gpu": ("wants_a_gpu", {}, r".*(CUDA|cuda|NVIDIA)"),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("users")
    (folder / "users.py").write_text(USERS, encoding="utf-8")
    deep = folder / "package" / "models"
    deep.mkdir(parents=True)
    (deep / "layers.py").write_text("WIDTH = 32\n", encoding="utf-8")
    # What an editor leaves beside a file that is not saved yet.
    (folder / ".#users.py").symlink_to("nobody@nowhere.1")
    return folder


@pytest.fixture(scope="session")
def plan(folder):
    def make(factory="build", config=None, **changes):
        return small_jobs.plan_job(
            folder,
            **{
                "model": {"factory": f"users:{factory}", "config": config or {}},
                "data": IMAGES,
                "n_params": N_PARAMS,
                "zero": {"stage": 2},
                **changes,
            },
        )

    return make


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "shadows"


@pytest.fixture(scope="session")
def answers(plan, kept):
    """Name -> answer; all asked for at once, before anything else is."""
    requests = {
        name: shadow(plan(factory, config)) for name, (factory, config, _) in REFUSED.items()
    }
    requests["well"] = shadow(plan())
    requests["well, last rank"] = shadow(plan(), rank=1)
    requests["well, profile"] = ProfileRequest(plan=plan())
    mean = {"how": "mean"}
    requests["mean"] = shadow(plan("build", mean))
    requests["mean, one module"] = shadow(plan("build", mean, data={"factory": "users:rows"}))
    requests["drops"] = shadow(plan("drops"))
    requests["chatters"] = shadow(plan("chatters"))
    requests["fake test"], requests["real test"] = self_test(stage=2, precision="fp32")
    found = Shadows(cache=kept, environment=os.environ).ask(list(requests.values()))
    return dict(zip(requests, found, strict=True))


def shadow(plan, *, rank=0):
    return ShadowRequest(plan=plan, rank=rank, sample=None, allocator=AllocatorSettings())


def ask_without_python(kept, *requests):
    return Shadows(cache=kept, environment=NO_PYTHON).ask(requests)


@pytest.mark.parametrize("name", REFUSED)
def test_why_there_is_no_shadow_is_told_in_a_line(answers, name):
    why = answers[name]
    assert isinstance(why, str)
    assert re.match(REFUSED[name][-1], why), why
    assert len(why.splitlines()) == 1


@pytest.mark.parametrize("name", ["well", "well, last rank", "chatters"])
def test_the_others_are_answered_all_the_same(answers, name):
    found = answers[name]
    assert isinstance(found, ShadowResult), found
    assert found.n_params == N_PARAMS
    assert answers["well, profile"].n_trainable == N_PARAMS


def test_tensors_of_a_users_module_may_be_older_than_the_model(answers):
    alone, together = answers["mean"], answers["mean, one module"]
    assert isinstance(alone, ShadowResult), alone
    assert isinstance(together, ShadowResult), together
    # What lies there since the data were built is not what the model takes.
    mean_bytes = 4 * 64
    alone_bytes, together_bytes = (one.phase_peak_bytes["step"] for one in (alone, together))
    assert alone_bytes - together_bytes == mean_bytes


def test_drop_rates_can_be_read_while_a_model_is_built(answers):
    assert isinstance(answers["drops"], ShadowResult), answers["drops"]


class TestForecast:
    def test_a_model_that_looks_at_values_is_left_to_the_closed_form(self, answers, plan, kept):
        forecaster = Forecaster(
            Shadows(cache=kept, environment=os.environ), where=KNOWN_NOWHERE, environment={}
        )
        found = forecaster.forecast(plan("build", {"how": "item"}))
        assert found.method == "closed_form"
        assert found.why_closed_form == answers["item"]
        assert found.activations_known is False
        # Weights, a half of the gradients, of master weights and of Adam's two.
        assert found.peak_bytes > 4 * N_PARAMS + (4 + 12) * N_PARAMS / 2

    @pytest.mark.usefixtures("answers")
    def test_a_model_that_does_not_has_a_shadow_behind_it(self, plan, kept):
        forecaster = Forecaster(
            Shadows(cache=kept, environment=NO_PYTHON), where=KNOWN_NOWHERE, environment={}
        )
        found = forecaster.forecast(plan())
        assert found.method == "shadow"
        assert found.why_closed_form is None
        assert found.activations_known


class TestWhatIsKept:
    def test_the_same_question_is_answered_without_a_process(self, answers, plan, kept):
        began_s = time.perf_counter()
        found = ask_without_python(
            kept, shadow(plan()), shadow(plan(), rank=1), ProfileRequest(plan=plan())
        )
        assert time.perf_counter() - began_s < 1
        names = ("well", "well, last rank", "well, profile")
        assert [one.to_json() for one in found] == [answers[name].to_json() for name in names]
        assert isinstance(found[-1], ModelProfile)

    @pytest.mark.usefixtures("answers")
    def test_what_costs_nothing_is_not_part_of_the_question(self, plan, kept):
        changes = {"steps": 400, "seed": 3, "optimizer": {"lr": 0.5}, "eval_every_steps": 7}
        # The same batches, written otherwise.
        written = {"global_batch_size": None, "gradient_accumulation_steps": 2}
        same = plan(training={**changes, **written}, resources={"memory_budget_gib": 1})
        (found,) = ask_without_python(kept, shadow(same))
        assert isinstance(found, ShadowResult)

    @pytest.mark.usefixtures("answers")
    @pytest.mark.parametrize(
        "changes",
        [
            {"zero": {"stage": 1}},
            {"training": {"micro_batch_size": 8}},
            {"training": {"precision": "bf16"}},
            {"training": {"optimizer": {"name": "sgd"}}},
            {"resources": {"workers": 4}},
            {"deepspeed": {"zero_optimization": {"reduce_bucket_size": 1000}}},
        ],
        ids=str,
    )
    def test_another_question_is_asked(self, plan, kept, changes):
        (found,) = ask_without_python(kept, shadow(plan(**changes)))
        assert isinstance(found, str)
        assert found.startswith("it gave no answer: ")

    @pytest.mark.usefixtures("answers")
    @pytest.mark.parametrize("module", ["users.py", "package/models/layers.py"])
    def test_changed_code_of_the_user_is_asked_anew(self, folder, plan, kept, module):
        path = folder / module
        before = path.read_text(encoding="utf-8")
        path.write_text(before + "# changed\n", encoding="utf-8")
        (found,) = ask_without_python(kept, shadow(plan()))
        path.write_text(before, encoding="utf-8")
        (again,) = ask_without_python(kept, shadow(plan()))
        assert isinstance(found, str)
        assert isinstance(again, ShadowResult)

    @pytest.mark.parametrize("name", REFUSED)
    def test_a_failure_is_tried_again(self, answers, plan, kept, name):
        factory, config, _ = REFUSED[name]
        (found,) = ask_without_python(kept, shadow(plan(factory, config)))
        assert found != answers[name]
        assert found.startswith("it gave no answer: ")

    def test_a_broken_file_is_as_good_as_none(self, answers, plan, kept, tmp_path):
        broken = tmp_path / "broken"
        broken.mkdir()
        for path in kept.iterdir():
            (broken / path.name).write_text(path.read_text()[:-5])
        assert isinstance(answers["well"], ShadowResult)
        (found,) = ask_without_python(broken, shadow(plan()))
        assert isinstance(found, str)
