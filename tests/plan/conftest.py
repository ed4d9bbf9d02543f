from functools import partial

import pytest

from tests import small_jobs


@pytest.fixture
def write_job(tmp_path):
    """Write the small job with some sections changed, and load it."""
    return partial(small_jobs.write_job, tmp_path)


@pytest.fixture
def plan(tmp_path):
    """Plan the small job with some sections changed."""
    return partial(small_jobs.plan_job, tmp_path)


@pytest.fixture(scope="session")
def installed():
    """DeepSpeed's own configuration module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        yield pytest.importorskip("deepspeed.runtime.config")
