"""Runs on a cluster that somebody else started: `ray start --head`, `ray start --address`, a token.

Two nodes of one CPU each, on this machine; the second cannot see the folder of jobs and state.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.luggage import PACKAGE
from orchestrator.launch.on_ray.cluster_address import check_answers
from tests.launch.command import MARK, Command, processes_marked, write_users_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
SECRET = "planted-1c9e"
BUSY = (
    r"is busy: 2 CPUs and 0 GPUs are needed, 1 and 0 are free, "
    r"held by hold\.py on [\d.]+ \(1 CPU, since \d\d:\d\d\)"
)
COUNT_CPUS = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False, logging_level=40)
print(ray.cluster_resources().get("CPU", 0))
"""
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


CAN_HIDE = (
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
)
"""Whether this user may give a process its own view of the disk (unshare(1))."""
HIDE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']


class Cluster:
    def __init__(self, folder, *, hidden):
        self.hidden = hidden
        self.address = f"127.0.0.1:{free_port()}"
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._mark = secrets.token_hex(8)
        self._folder = folder
        self._processes = []

    def start(self):
        self._start(
            *("--head", "--port", self.address.rpartition(":")[2], "--temp-dir", str(self._folder)),
            *("--include-dashboard", "false", "--disable-usage-stats"),
        )
        self._wait_until_up()
        elsewhere = ("--address", self.address, "--node-name", "elsewhere")
        self._start(*elsewhere, before=[*HIDE, self.hidden] if CAN_HIDE else [])
        self._wait_for_cpus(2)

    def _start(self, *arguments, before=()):
        with (self._folder / "ray.log").open("a") as log:
            process = subprocess.Popen(
                [
                    *(
                        *before,
                        Path(sys.executable).with_name("ray"),
                        "start",
                        "--block",
                        *arguments,
                    ),
                    *("--num-cpus", "1", "--object-store-memory", "80000000"),
                ],
                env={**os.environ, **self.token, MARK: self._mark},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)

    @property
    def is_up(self):
        return all(process.poll() is None for process in self._processes)

    def _wait_for_cpus(self, number):
        deadline_s = time.monotonic() + 60
        while self._n_cpus() < number:
            assert time.monotonic() < deadline_s, (self._folder / "ray.log").read_text()
            assert self.is_up

    def _n_cpus(self):
        done = subprocess.run(
            [sys.executable, "-c", COUNT_CPUS, self.address],
            env={**os.environ, **self.token},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        return float(done.stdout or 0)

    def _wait_until_up(self):
        deadline_s = time.monotonic() + 60
        while True:
            try:
                check_answers(self.address, environment={})
            except UsageError:
                assert time.monotonic() < deadline_s
                assert self.is_up
                time.sleep(0.2)
            else:
                return

    def stop(self):
        # Asked to end in order, it would wait half a minute for its jobs.
        for pid in processes_marked(self._mark):
            os.kill(pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(10)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    # Ray's sockets need a short name.
    folder = Path(tempfile.mkdtemp(prefix="c", dir="/tmp"))
    started = Cluster(folder, hidden=tmp_path_factory.mktemp("hidden"))
    try:
        started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder)


@pytest.fixture
def launch(cluster):
    commands = []

    def start(*arguments, wait=True, cwd=None, **environment):
        folder = Path(tempfile.mkdtemp(dir=cluster.hidden))
        command = Command(
            *("launch", write_users_job(folder), "--json", *arguments),
            home=folder / "home",
            cwd=cwd,
            **{**cluster.token, "RAY_ADDRESS": cluster.address, **environment},
        )
        commands.append(command)
        return command.wait(timeout_s=60) if wait else command

    yield start
    for command in commands:
        command.close()


def test_a_job_runs_and_the_cluster_lives_on(launch, cluster):
    """Also where a rank's machine has none of the user's files, nor a way to state and tracking."""
    each = ("--set", "resources.cpus_per_worker=1", "--set", "resources.placement=spread")
    command = launch(*each, "--set", "training.steps=5")
    assert command.exit_code == 0, command.stderr
    assert command.answer["outcome"] == "ok"
    assert [row["rank"] for row in command.answer["ranks"]] == [0, 1]
    nodes = {row["node"] for row in command.answer["ranks"]}
    assert "elsewhere" in nodes
    assert len(nodes) == 2
    assert command.tracked("select status from runs") == ["FINISHED"]
    assert command.left_running() == []
    assert command.left_behind() == []
    assert list(Path(tempfile.gettempdir()).glob("orchestrator-job-*")) == []
    assert cluster.is_up
    check_answers(cluster.address, environment={})


def test_a_node_with_another_version_of_the_package_is_named(launch, tmp_path):
    changed = tmp_path / "changed" / "orchestrator"
    shutil.copytree(PACKAGE, changed, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / "units.py").open("a") as module:
        module.write("# A line more.\n")
    each = ("--set", "resources.cpus_per_worker=1")
    command = launch(*each, cwd=tmp_path, PYTHONPATH=str(changed.parent))
    assert command.exit_code == 1
    words = (
        r"node \S+ has another version of this package \(units\.py\); bring it up to date there, .*"
    )
    assert re.fullmatch(words, command.answer["message"])


@pytest.mark.parametrize(
    ("workers", "cpus", "words"),
    [
        (9, 1, "9 workers x 1 CPUs need 9 CPUs and the cluster at {} has 2; "),
        (1, 1.5, "and the 2 nodes of the cluster at {} have whole places for 0; "),
    ],
)
def test_a_job_that_never_fits_is_refused_at_once(launch, cluster, workers, cpus, words):
    settings = (f"resources.workers={workers}", f"resources.cpus_per_worker={cpus}")
    batch = f"training.global_batch_size={4 * workers}"
    command = launch(*(word for pair in (*settings, batch) for word in ("--set", pair)))
    assert command.exit_code == 3
    assert command.seconds < 10
    assert words.format(cluster.address) in command.answer["error"]
    assert command.stderr.strip() == command.answer["error"]


@contextlib.contextmanager
def one_cpu_held(cluster, folder):
    """Somebody else's actor holds one of the cluster's two CPUs."""
    script = folder / "hold.py"
    script.write_text(HOLD_ONE_CPU)
    with subprocess.Popen(
        [sys.executable, script, cluster.address, "--password", SECRET],
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


def test_a_cluster_whose_cpus_are_taken_is_waited_for_as_long_as_asked(launch, cluster, tmp_path):
    """Until they are free, or until the time is up; what is waited for is said."""
    asked = ("--set", "resources.cpus_per_worker=1", "--set", "training.steps=5")
    with one_cpu_held(cluster, tmp_path):
        given_up = launch(*asked, "--wait", "2s")
        served = launch(*asked, "--wait", "1m", wait=False)
        served.wait_until(lambda: "waiting for them" in served.stderr)
        time.sleep(2)
    served.wait()
    assert given_up.exit_code == 3
    assert given_up.answer["outcome"] == "infeasible"
    assert re.search(BUSY, given_up.answer["message"])
    assert given_up.tracked("select status from runs") == ["FAILED"]
    assert served.exit_code == 0, served.stderr
    for command in (given_up, served):
        assert re.search(rf"{BUSY}; waiting for them, ", command.stderr)


def test_a_wrong_token_is_told_in_one_line(launch):
    command = launch(RAY_AUTH_TOKEN="0" * 64)
    assert command.exit_code == 2
    assert command.seconds < 15
    assert len(command.stderr.splitlines()) == 1, command.stderr
    assert "cannot be joined" in command.answer["error"]
    assert "is its token in RAY_AUTH_TOKEN" in command.answer["error"]
