"""Whatever stands in a job file, it loads or is refused in our words: nothing else happens."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.load import JobFile, load_job
from orchestrator.spec.shapes import resolve_shapes

JOB = """\
name: resnet-zero2
model: {family: resnet, config: {hidden_sizes: [32, 64], depths: [1, 1]}}
data: {source: digits, image_size: 32}
training:
  steps: 100
  micro_batch_size: 8
  activation_checkpointing: false
  optimizer: {name: adamw, lr: 1.0e-3, betas: [0.9, 0.95]}
  schedule: {name: cosine, warmup_steps: 10}
zero: {stage: 2, offload_optimizer: none, nvme_path: null}
deepspeed: {a: {b: "auto"}}
resources: {workers: 2, memory_budget_gib: 16GiB}
tracking: {experiment: resnet, uri: null}
compare: {axes: {zero.stage: [0, 1]}, exclude: [{zero.stage: 0}]}
"""
PIECES = [
    *"{}[]:,-?&*!|>'\"%@`#~ \n\t\0\x07\ufeff\x85\u2028ß𝄞.=<",
    "null", "true", "on", "-1", "0", "010", "1e999", ".nan", "9" * 400, "1e-3", "1:30", "!!int ",
    "<<: ", "&a ", "*a", "---\n", "...\n", "%YAML 1.1\n", "\\ud800", '"\\U00110000"', "\r\n",
    "[" * 40, "{a: " * 40, "compare", "zero.stage", "name", "stage: 3, ", "offload_params: nvme, ",
    "family", "factory: a:b, ", "16XX", "config", "axes: {", "variants: [{zero.stage: 3}], ",
]  # fmt: skip


def load(path: Path, text: str, overrides: tuple[str, ...] = ()) -> JobFile | None:
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
    try:
        job = load_job(path, overrides=overrides)
        resolve_shapes(job)
    except SpecError as error:
        problems = error.problems
    else:
        return job
    assert problems
    for problem in problems:
        assert problem.where.startswith((f"{path}", "--set "))
        assert str(problem).isprintable()
        assert problem.message
    return None


def mutate(text: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        until = min(len(text), at + chance.choice((0, 0, 1, 3, 12)))
        other = chance.randrange(len(text) + 1)
        piece = chance.choice([*PIECES, "", text[other : other + chance.randint(1, 30)]])
        text = text[:at] + piece + text[until:]
    return text


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_job_loads_or_is_a_spec_error(tmp_path, seed):
    chance = random.Random(seed)
    n_loaded = sum(load(tmp_path / "job.yaml", mutate(JOB, chance)) is not None for _ in range(300))
    assert 0 < n_loaded < 300


def test_lines_in_another_order_load_or_are_a_spec_error(tmp_path):
    chance = random.Random(5)
    lines = JOB.splitlines(keepends=True)
    for _ in range(100):
        load(tmp_path / "job.yaml", "".join(chance.choices(lines, k=chance.randint(0, 20))))


def test_a_mutated_override_loads_or_is_a_spec_error(tmp_path):
    chance = random.Random(6)
    start = "compare.axes.zero.stage=[1, {a: null}]"
    for _ in range(300):
        load(tmp_path / "job.yaml", JOB, (mutate(start, chance),))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    "name", "model", "model.family", "model.config", "model.config.depths", "data", "data.channels",
    "training", "training.steps", "training.optimizer.betas", "training.schedule", "zero.stage",
    "deepspeed", "resources.memory_budget_gib", "tracking.uri", "compare", "compare.axes",
    "compare.axes.zero.stage", "compare.variants", "compare.exclude",
]  # fmt: skip


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_at_any_key_loads_or_is_a_spec_error(tmp_path, key, value):
    load(tmp_path / "job.yaml", JOB, (f"{key}={value!r}",))


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=st.text(max_size=60))
def test_any_text_is_a_spec_error(tmp_path, text):
    assert load(tmp_path / "job.yaml", text) is None
