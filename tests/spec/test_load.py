"""A job file becomes a spec, and every key can be found again in it."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import Problem, SpecError, UsageError
from orchestrator.spec.data import DigitsData
from orchestrator.spec.load import load_job
from orchestrator.spec.model import ResnetModel

DESIGN_JOB = """\
name: resnet-zero2
model: {family: resnet, config: {hidden_sizes: [32, 64], depths: [1, 1]}}            # or {factory: my_package.my_module:build, config: {...}}
data: {source: digits, image_size: 32}                       # or {factory: ...}
training:
  steps: 100                                      # or epochs: 3; exactly one
  global_batch_size: 64                           # samples per optimizer step, the same whatever the strategy
  micro_batch_size: 8                             # samples one worker computes at once
  gradient_accumulation_steps: 4                  # may be left out: global / (micro x workers); if given it must agree
  precision: fp32                                 # fp32 | bf16 | fp16
  activation_checkpointing: false
  optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 0.01}
  schedule: {name: cosine, warmup_steps: 10}
  seed: 0
zero: {stage: 2, offload_optimizer: none, offload_params: none, nvme_path: null}    # none | cpu | nvme
deepspeed: {}                                     # passed to DeepSpeed as it stands (dict or path); a key set elsewhere too is an error
resources: {workers: 2, device: auto, cpus_per_worker: 1, memory_budget_gib: null}  # auto | cpu | cuda
checkpoint: {every_steps: 50, keep: 2, resume: auto}
failures: {max_restarts: 3}
tracking: {experiment: resnet, uri: null}         # null: the embedded sqlite store
compare: {axes: {zero.stage: [0, 1, 2, 3], zero.offload_optimizer: [none, cpu]}, exclude: [{zero.stage: 0, zero.offload_optimizer: cpu}]}       # or variants: [{name: ..., zero.stage: 3, ...}]; any key may vary
"""  # noqa: E501
DESIGN_VARIANTS = """\
compare:
  variants:
    - {name: plain, zero.stage: 0}
    - {name: all-of-it, zero.stage: 3, zero.offload_params: cpu, training.micro_batch_size: 4}
"""


@pytest.fixture
def design_job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(DESIGN_JOB)
    return path


def test_the_job_file_of_the_design_is_accepted(design_job):
    spec = load_job(design_job).spec
    assert spec.name == "resnet-zero2"
    assert isinstance(spec.model, ResnetModel)
    assert spec.model.config.hidden_sizes == (32, 64)
    assert isinstance(spec.data, DigitsData)
    assert spec.training.steps == 100
    assert spec.training.optimizer.lr == 0.001
    assert spec.training.activation_checkpointing is False
    assert spec.zero.stage == 2
    assert spec.zero.nvme_path is None
    assert spec.resources.workers == 2
    assert spec.checkpoint.every_steps == 50
    assert spec.tracking.experiment == "resnet"
    assert spec.compare is not None
    assert spec.compare.axes["zero.stage"] == [0, 1, 2, 3]


def test_variants_of_the_design_are_accepted(design_job):
    before_compare = DESIGN_JOB[: DESIGN_JOB.index("compare:")]
    design_job.write_text(before_compare + DESIGN_VARIANTS)
    spec = load_job(design_job).spec
    assert spec.compare is not None
    assert [variant["name"] for variant in spec.compare.variants] == ["plain", "all-of-it"]


def test_factories_of_the_design_are_accepted(write_job):
    path = write_job(
        "model: {factory: my_package.my_module:build, config: {width: 3, on: yes}}\n"
        "data: {factory: my_data:build}"
    )
    spec = load_job(path).spec
    assert spec.model.config == {"width": 3, "on": "yes"}


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("training: {steps: 10, global_batch_size: 8, gradient_clipping: 1}", "training", 1.0),
        ("resources: {memory_budget_gib: 512MiB}", "resources", 0.5),
        ("resources: {memory_budget_gib: 16}", "resources", 16.0),
    ],
)
def test_numbers_may_be_written_in_several_ways(write_job, line, key, value):
    section = getattr(load_job(write_job(line)).spec, key)
    assert value in (
        getattr(section, "gradient_clipping", None),
        getattr(section, "memory_budget_gib", None),
    )


def test_a_number_of_bytes_may_be_a_size(write_job):
    data = "data: {source: text, max_bytes: 2MiB}"
    assert getattr(load_job(write_job(data)).spec.data, "max_bytes", None) == 2 * 2**20


def test_text_and_path_are_kept_as_given(design_job):
    job = load_job(design_job)
    assert job.text == DESIGN_JOB
    assert job.path == design_job
    assert job.overrides == ()


def test_a_job_is_the_same_after_pickling(design_job):
    job = load_job(design_job, overrides=["zero.stage=1"])
    assert pickle.loads(pickle.dumps(job)) == job


@pytest.mark.parametrize(
    ("key", "line", "column"),
    [
        ("name", 1, 1),
        ("model.family", 2, 9),
        ("model.config.depths", 2, 58),
        ("model.config.depths[1]", 2, 70),
        ("training", 4, 1),
        ("training.micro_batch_size", 7, 3),
        ("training.optimizer.lr", 11, 28),
        ("training.optimizer.betas", 11, 3),
        ("training.loss", 4, 1),
        ("zero.nvme_path", 14, 65),
        ("compare.axes.zero.stage", 20, 18),
        ("compare.axes.zero.stage[3]", 20, 40),
        ("compare.exclude[0].zero.stage", 20, 93),
        ("compare.variants[0].zero.stage", 20, 1),
        ("no.such.key", 1, 1),
        ("", 1, 1),
    ],
)
def test_a_problem_stands_where_its_key_or_nearest_parent_does(design_job, key, line, column):
    job = load_job(design_job)
    assert job.problem(key, "wrong; mend it") == Problem(
        where=f"{design_job}:{line}:{column}", key=key, message="wrong; mend it"
    )


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.steps=70", "training.steps"),
        ("training.loss=l1", "training.loss"),
        ("training.optimizer={lr: 0.1}", "training.optimizer.lr"),
        ("training.optimizer={lr: 0.1}", "training.optimizer.eps"),
        ("model.config.depths=[2, 2]", "model.config.depths[1]"),
        ("compare.axes.zero.stage=[0, 3]", "compare.axes.zero.stage[1]"),
    ],
)
def test_a_problem_with_an_overridden_key_names_the_override(design_job, override, key):
    job = load_job(design_job, overrides=["zero.stage=1", override])
    assert job.problem(key, "x").where == f"--set {override}"


def test_a_neighbour_of_an_overridden_key_keeps_its_line(design_job):
    job = load_job(design_job, overrides=["training.steps=70"])
    assert job.problem("training.seed", "x").where == f"{design_job}:13:3"
    assert job.problem("training", "x").where == f"{design_job}:4:1"


def test_an_overridden_mapping_loses_the_lines_below_it(design_job):
    job = load_job(design_job, overrides=["training.optimizer={name: sgd}"])
    assert job.problem("training.optimizer.lr", "x").where == (
        "--set training.optimizer={name: sgd}"
    )


def test_a_section_made_by_an_override_belongs_to_it(write_job):
    job = load_job(write_job(), overrides=["checkpoint.every_steps=5"])
    assert job.problem("checkpoint.keep", "x").where == "--set checkpoint.every_steps=5"


def test_the_path_is_shown_as_the_user_gave_it(write_job, monkeypatch):
    path = write_job("zero: {stage: 4}")
    monkeypatch.chdir(path.parent)
    with pytest.raises(SpecError, match=r"^job\.yaml:5:8: zero\.stage: got 4; choose"):
        load_job(Path("job.yaml"))


def test_every_problem_is_reported_at_once_in_file_order(write_job):
    path = write_job(
        "name: Bad Name\n"
        "training: {steps: abc, global_batch_sise: 8, lr: 1e-3}\n"
        "zero: {stage: 4, stage: 3}\n"
        "resources: {workers: 0}"
    )
    with pytest.raises(SpecError, match="Bad Name") as caught:
        load_job(path, overrides=["zero.offload_params=disk", "checkpoint.keep=0"])
    assert [(p.where.removeprefix(f"{path}:"), p.key) for p in caught.value.problems] == [
        ("1:1", "name"),
        ("4:12", "training.steps"),
        ("4:24", "training.global_batch_sise"),
        ("4:46", "training.lr"),
        ("5:8", "zero.stage"),
        ("5:18", "zero.stage"),
        ("6:13", "resources.workers"),
        ("--set zero.offload_params=disk", "zero.offload_params"),
        ("--set checkpoint.keep=0", "checkpoint.keep"),
    ]


def test_a_typo_is_reported_instead_of_the_missing_key_it_causes(write_job):
    path = write_job()
    path.write_text(path.read_text().replace("training:", "trainign:"))
    with pytest.raises(SpecError, match="did you mean 'training'") as caught:
        load_job(path)
    assert [problem.key for problem in caught.value.problems] == ["trainign"]


def test_a_value_that_cannot_be_read_is_one_problem_not_two(write_job):
    with pytest.raises(SpecError, match="not a finite number") as caught:
        load_job(write_job("training: {steps: .nan, global_batch_size: 8}"))
    assert len(caught.value.problems) == 1


BOMB = "a: &a [x, x]\n" + "".join(
    f"b{n}: &b{n} [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n" for n in range(100)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BOMB, "1:4: a: anchors and aliases (&, *) are not supported; write it out"),
        (
            "name: !!python/object/apply:os.system [ls]\n",
            "1:7: name: tags such as '!!python/object/apply:os.system' are not supported; remove",
        ),
        ("model: !mine {famly: resnet}\n", "1:8: model: tags such as '!mine' are not supported"),
        ("base: &base {x: 1}\nname: x\n", "1:7: base: anchors and aliases (&, *) are not"),
        ("training:\n  <<: {steps: 3}\n", "2:3: training.<<: merging (<<) is not supported"),
        ("? [name, model]\n: 3\n", "1:3: a key is a list or a mapping; quote it to make it text"),
    ],
    ids=["bomb", "object", "tag", "anchor", "merge", "key"],
)
def test_what_is_no_plain_yaml_is_one_line_without_what_follows_from_it(tmp_path, text, line):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=re.escape(f"job.yaml:{line}")) as caught:
        load_job(path)
    assert len(caught.value.problems) == 1


def test_an_override_that_is_no_plain_yaml_is_one_line(write_job):
    with pytest.raises(SpecError, match=r"^--set zero=&a \{stage: \*a\}: zero: anchors") as caught:
        load_job(write_job(), overrides=["zero=&a {stage: *a}"])
    assert len(caught.value.problems) == 1


def test_thousands_of_problems_are_counted_not_listed(write_job):
    path = write_job("".join(f"key{n}: 1\n" for n in range(3000)))
    with pytest.raises(SpecError, match="2,900 more problems; mend these first") as caught:
        load_job(path)
    assert len(caught.value.problems) == 101


def test_overrides_are_kept_with_the_job(design_job):
    job = load_job(design_job, overrides=["zero.stage=1", "zero.stage=3"])
    assert job.overrides == ("zero.stage=1", "zero.stage=3")
    assert job.spec.zero.stage == 3
    assert job.text == DESIGN_JOB


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_job(tmp_path / "job.yaml")


def test_loading_imports_nothing_heavy():
    heavy = ("torch", "ray", "deepspeed", "mlflow", "transformers", "numpy", "sklearn")
    code = (
        "import sys, orchestrator.spec.load, orchestrator.spec.shapes, orchestrator.spec.schema\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
