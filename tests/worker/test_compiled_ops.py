import os

import pytest

from orchestrator.launch.compiled_ops import make_ready
from orchestrator.worker.compiled_ops import build, load_built
from tests.worker.ranks import EXTENSIONS

pytestmark = pytest.mark.ray


@pytest.fixture
def loaded(monkeypatch):
    """What DeepSpeed holds as loaded, empty."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    builders = pytest.importorskip("deepspeed.ops.op_builder")
    ops = builders.CPUAdamBuilder._loaded_ops
    before = dict(ops)
    ops.clear()
    yield ops
    ops.clear()
    ops.update(before)


def test_an_op_that_lies_ready_is_loaded_without_the_compiler(loaded, monkeypatch):
    make_ready(("cpu_adam",), folder=EXTENSIONS, environment=os.environ, show=print)
    monkeypatch.setenv("PATH", "")
    load_built(["cpu_adam"], folder=EXTENSIONS)
    assert callable(loaded["cpu_adam"].adam_update)
    first = loaded["cpu_adam"]
    load_built(["cpu_adam"], folder=EXTENSIONS)
    assert loaded["cpu_adam"] is first
    # DeepSpeed takes it from there.
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/nowhere")
    build("cpu_adam")


def test_an_op_that_is_not_there_is_left_to_deepspeed(loaded, tmp_path):
    load_built(["cpu_adam"], folder=tmp_path)
    assert loaded == {}
