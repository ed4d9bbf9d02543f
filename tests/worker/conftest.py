import gc
import json
import os
import sys
from functools import partial

import pytest
import torch
import torch.distributed as dist

from orchestrator.launch.compiled_ops import make_ready
from tests import small_jobs
from tests.worker.ranks import EXTENSIONS, run_ranks


@pytest.fixture(scope="session", autouse=True)
def _look_through_new_objects_only():
    """What all tests so far left and imported is a million objects; each probe would see them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """Train the changed small job in real processes; equal jobs are trained once a session."""
    folder = tmp_path_factory.mktemp("jobs")
    outcomes = {}

    def train_once(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in outcomes:
            made = small_jobs.plan_job(folder, **changes)
            make_ready(made.compiled_ops, folder=EXTENSIONS, environment=os.environ, show=print)
            outcomes[key] = run_ranks(made)
        return outcomes[key]

    return train_once


@pytest.fixture
def plan(tmp_path):
    """Plan the small job with some sections changed."""
    return partial(small_jobs.plan_job, tmp_path)


@pytest.fixture
def one_rank():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def this_process(monkeypatch):
    """Give back what a rank changes in its process: environment and threads."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setitem(os.environ, name, "")
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a user's module beside the job, and forget it afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return tmp_path

    yield write
    for name in set(sys.modules) - loaded:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
