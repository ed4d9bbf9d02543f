"""For every test."""

import signal
import subprocess
import sys

import pytest

from tests.worker.ranks import EXTENSIONS

COMPILE = """
import os, sys
from pathlib import Path
from orchestrator.launch.compiled_ops import has_compiler, make_ready

os.nice(19)
if has_compiler(os.environ):
    # One by one: who needs what is ready does not wait for the rest.
    for op in ("cpu_adam", "async_io"):
        make_ready([op], folder=Path(sys.argv[1]), environment=os.environ, show=print)
"""


@pytest.fixture(scope="session", autouse=True)
def compiled_ops(request):
    """Compile DeepSpeed's ops beside the first tests that start something, which often wait.

    Who needs an op before it is ready waits for it, as in the product.
    """
    starts = {mark.name for item in request.session.items for mark in item.iter_markers()}
    if not starts & {"ray", "cluster"}:
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-c", COMPILE, str(EXTENSIONS)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        yield
        # With what it has started.
        process.send_signal(signal.SIGINT)
