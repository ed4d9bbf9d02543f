import os

import pytest

from orchestrator.launch.on_ray.local_ray import LocalRay

CPU = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        monkeypatch.delenv(name)


def test_ranks_on_cpu_hide_the_gpus_only_until_they_are_over():
    ray = LocalRay(verbose=False)
    for _ in range(2):
        ray.apply_environment(CPU)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
        assert os.environ["DS_ACCELERATOR"] == "cpu"
    ray.stop()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "DS_ACCELERATOR" not in os.environ


def test_every_ray_has_a_token():
    ray = LocalRay(verbose=False)
    ray.apply_environment({})
    ray.stop()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
