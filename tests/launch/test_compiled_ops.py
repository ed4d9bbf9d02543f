"""Compiled ops: built by one process before the ranks start, and no lock left that hangs them."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.compiled_ops import STALE_LOCK_S, has_compiler, make_ready

MAKE = """
import os, sys
from pathlib import Path
from orchestrator.launch.compiled_ops import make_ready
make_ready(["cpu_adam"], folder=Path(sys.argv[1]), environment=os.environ, show=print)
"""


@pytest.fixture
def said():
    return []


def ready(folder, *ops):
    folder.mkdir(exist_ok=True)
    for op in ops:
        (folder / f".{op}.ready").touch()


def lock(folder, op, *, age_s):
    path = folder / op / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_job_without_compiled_ops_touches_nothing(tmp_path, said):
    make_ready([], folder=tmp_path / "ops", environment={}, show=said.append)
    assert not (tmp_path / "ops").exists()


def test_what_is_built_is_not_built_again(tmp_path, said):
    ready(tmp_path, "cpu_adam", "async_io")
    make_ready(["cpu_adam", "async_io"], folder=tmp_path, environment={}, show=said.append)
    assert said == []


def test_a_lock_that_a_dead_build_left_is_removed(tmp_path, said):
    ready(tmp_path, "cpu_adam")
    stale = lock(tmp_path, "cpu_adam", age_s=STALE_LOCK_S + 60)
    fresh = lock(tmp_path, "somebody_elses", age_s=1)
    make_ready(["cpu_adam"], folder=tmp_path, environment={}, show=said.append)
    assert not stale.exists()
    assert fresh.exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, said):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written: .*; choose another with TORCH_EXT"):
        make_ready(["cpu_adam"], folder=tmp_path / "file", environment={}, show=said.append)


def test_the_compiler_that_cxx_names_is_the_one(tmp_path):
    assert has_compiler({"CXX": sys.executable})
    assert not has_compiler({"CXX": str(tmp_path / "none")})


@pytest.fixture
def other(tmp_path):
    """Another run that builds into the same folder, until its lock is closed."""
    with (tmp_path / ".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def test_another_run_that_builds_is_waited_for_and_said(tmp_path, said, other):
    def done():
        ready(tmp_path, "cpu_adam")
        fcntl.flock(other, fcntl.LOCK_UN)

    threading.Timer(0.2, done).start()
    make_ready(["cpu_adam"], folder=tmp_path, environment={}, show=said.append)
    assert said == ["Waiting for another run that compiles the same"]


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("other")
def test_who_needs_what_is_ready_does_not_wait_for_another_run(tmp_path, said):
    ready(tmp_path, "cpu_adam")
    make_ready(["cpu_adam"], folder=tmp_path, environment={}, show=said.append)
    assert said == []


@pytest.mark.ray
def test_a_compiler_that_fails_is_one_line_with_a_way_out(tmp_path, said):
    environment = {**os.environ, "CXX": "/bin/false"}
    with pytest.raises(UsageError, match=r"DeepSpeed's cpu_adam cannot be compiled: .*") as caught:
        make_ready(["cpu_adam"], folder=tmp_path, environment=environment, show=said.append)
    assert len(str(caught.value).splitlines()) == 1
    assert "set zero.offload_optimizer: none" in str(caught.value)
    assert "Traceback" in (tmp_path / "cpu_adam.log").read_text()
    assert said == [
        "Compiling DeepSpeed's cpu_adam, once on this machine; it takes a minute or two"
    ]
    assert list(tmp_path.glob("*/lock")) == []


@pytest.mark.ray
def test_a_build_that_is_interrupted_leaves_no_compiler_and_no_lock(tmp_path):
    compiler = tmp_path / "slow-c++"
    # As c++ does, it leaves a file when it is killed.
    slow = "mktemp -t ccXXXXXX.s > {}/temporary; exec sleep 300"
    compiler.write_text(
        f"#!/bin/sh\ncase $* in *-c*) {slow.format(tmp_path)};; esac\nexec c++ $*\n"
    )
    compiler.chmod(0o755)
    ops = tmp_path / "ops"
    build = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(ops)],
        env={**os.environ, "CXX": str(compiler)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    temporary = tmp_path / "temporary"
    while not (list(ops.glob("*/lock")) and temporary.exists() and temporary.read_text()):
        assert time.monotonic() < deadline
        assert build.poll() is None
        time.sleep(0.1)
    build.send_signal(signal.SIGINT)
    assert build.wait(10) != 0
    assert list(ops.glob("*/lock")) == []
    assert Path(temporary.read_text().strip()).is_relative_to(ops)
    assert list(ops.glob(".build-*")) == []
    commands = [p.info["cmdline"] or [] for p in psutil.process_iter(["cmdline"])]
    assert [words for words in commands if str(compiler) in words] == []
