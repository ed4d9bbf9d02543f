"""Runs on a cluster that somebody else started, here with `ray start --head` and a token."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.cluster_address import check_answers
from tests.launch.command import MARK, Command, processes_marked, write_users_job

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
HOLD_ONE_CPU = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False, logging_level=40)

@ray.remote(num_cpus=1)
class Holder:
    def there(self):
        return "held"

holder = Holder.remote()
print(ray.get(holder.there.remote()), flush=True)
sys.stdin.read()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    def __init__(self, folder):
        self.address = f"127.0.0.1:{free_port()}"
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._mark = secrets.token_hex(8)
        self._log = (folder / "ray.log").open("w")
        self.process = subprocess.Popen(
            [
                *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
                *("--port", self.address.rpartition(":")[2], "--num-cpus", "2"),
                *("--include-dashboard", "false", "--disable-usage-stats"),
                *("--object-store-memory", "80000000", "--temp-dir", str(folder)),
            ],
            env={**os.environ, **self.token, MARK: self._mark},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_up(self):
        deadline_s = time.monotonic() + 60
        while True:
            try:
                check_answers(self.address, environment={})
            except UsageError:
                assert time.monotonic() < deadline_s
                assert self.process.poll() is None
                time.sleep(0.2)
            else:
                return

    def stop(self):
        # Asked to end in order, it would wait half a minute for its jobs.
        for pid in processes_marked(self._mark):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self._log.close()


@pytest.fixture(scope="module")
def cluster():
    # Ray's sockets need a short name.
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    started = Cluster(folder)
    try:
        started.wait_until_up()
        # The head answers a moment before its node has joined.
        time.sleep(3)
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder)


@pytest.fixture
def launch(cluster, tmp_path):
    commands = []

    def start(*arguments, **environment):
        command = Command(
            *("launch", write_users_job(tmp_path), "--json", *arguments),
            home=tmp_path / "home",
            **{**cluster.token, "RAY_ADDRESS": cluster.address, **environment},
        )
        commands.append(command)
        return command.wait(timeout_s=60)

    yield start
    for command in commands:
        command.close()


def test_a_job_runs_and_the_cluster_lives_on(launch, cluster):
    command = launch("--set", "training.steps=5")
    assert command.exit_code == 0, command.stderr
    assert command.answer["outcome"] == "ok"
    assert [row["rank"] for row in command.answer["ranks"]] == [0, 1]
    assert command.tracked("select status from runs") == ["FINISHED"]
    assert command.left_running() == []
    assert command.left_behind() == []
    assert cluster.process.poll() is None
    check_answers(cluster.address, environment={})


def test_a_job_that_never_fits_is_refused_at_once(launch, cluster):
    settings = ("--set", "resources.workers=9", "--set", "resources.cpus_per_worker=1")
    command = launch(*settings, "--set", "training.global_batch_size=36")
    assert command.exit_code == 3
    assert command.seconds < 10
    words = f"9 workers x 1 CPUs need 9 CPUs and the cluster at {cluster.address} has 2; "
    assert words in command.answer["error"]
    assert command.stderr.strip() == command.answer["error"]


@contextlib.contextmanager
def one_cpu_held(cluster):
    """Somebody else's actor holds one of the cluster's two CPUs."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_ONE_CPU, cluster.address],
        env={**os.environ, **cluster.token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()
        assert holder.wait(30) == 0


def test_a_cluster_whose_cpus_are_taken_is_not_waited_for(launch, cluster):
    with one_cpu_held(cluster):
        command = launch("--set", "resources.cpus_per_worker=1")
    assert command.exit_code == 3
    assert command.answer["outcome"] == "infeasible"
    assert "is busy: 2 CPUs and 0 GPUs are needed, 1 and 0 are free" in command.answer["message"]
    assert command.tracked("select status from runs") == ["FAILED"]


def test_a_cluster_whose_cpus_are_taken_is_waited_for_when_asked(launch, cluster):
    """Until they are free, or until the time is up; what is waited for is said."""
    asked = ("--set", "resources.cpus_per_worker=1", "--set", "training.steps=5")
    with ThreadPoolExecutor(1) as pool:
        with one_cpu_held(cluster):
            given_up = launch(*asked, "--wait", "2s")
            waits = pool.submit(partial(launch, *asked, "--wait", "1m"))
            time.sleep(15)
            assert not waits.done()
        served = waits.result()
    assert given_up.exit_code == 3
    assert "is busy: 2 CPUs and 0 GPUs are needed, 1 and 0 are free" in given_up.answer["message"]
    assert served.exit_code == 0, served.stderr
    for command in (given_up, served):
        assert "are needed, 1 and 0 are free; waiting for them, " in command.stderr


def test_a_wrong_token_is_told_in_one_line(launch):
    command = launch(RAY_AUTH_TOKEN="0" * 64)
    assert command.exit_code == 2
    assert command.seconds < 15
    assert len(command.stderr.splitlines()) == 1, command.stderr
    assert "cannot be joined" in command.answer["error"]
    assert "is its token in RAY_AUTH_TOKEN" in command.answer["error"]
