"""ray-local.sh for real: who can reach the two nodes, and what is left after them."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
JOIN = """
import ray, sys
ray.init(sys.argv[1], log_to_driver=False, logging_level=40)
print([node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]])
print(ray.cluster_resources()["CPU"])
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes_in_session(session):
    """Every process of a session. Source: proc(5), /proc/pid/stat, field 6."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            found.add(int(path.parent.name))
    return found


def listened_on(processes):
    """Addresses, as the kernel writes them. Source: proc(5), /proc/net/tcp; state 0A is LISTEN."""
    inodes = set()
    for process in processes:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            try:
                inodes.add(os.readlink(descriptor).removeprefix("socket:[").rstrip("]"))
            except FileNotFoundError:
                continue
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]


class Nodes:
    def __init__(self, home):
        self.home = home
        self.state = home / "state"
        self.said = ""
        self.port, self.dashboard_port = free_port(), free_port()
        without = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_ADDRESS"}
        self.environment = {
            **{k: v for k, v in os.environ.items() if k not in without},
            "HOME": str(home),
            "PYTHON": sys.executable,
            "ORCHESTRATOR_HOME": str(self.state),
        }

    def run(self, *arguments):
        return subprocess.run(
            [CLUSTER / "ray-local.sh", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self, *arguments):
        ports = ("--port", str(self.port), "--dashboard-port", str(self.dashboard_port))
        return self.run("start", "--cpus", "1", *ports, *arguments)

    @contextlib.contextmanager
    def running(self, *arguments):
        """Started, and stopped in the end."""
        done = self.start(*arguments)
        try:
            assert done.returncode == 0, done.stderr
            self.said = done.stdout
            yield self
        finally:
            self.run("stop")

    def record(self):
        session, _, folder = (self.state / "ray-local" / "started").read_text().split()
        return int(session), Path(folder)

    def token(self):
        return self.home / ".ray" / "auth_token"

    def jobs_api(self, path="", *, token=None, post=None):
        """The status of the answer, and what it says."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dashboard_port}/api/jobs/{path}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            data=json.dumps(post).encode() if post else None,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as err:
            with err:
                return err.code, None


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with Nodes(tmp_path_factory.mktemp("home")).running() as found:
        yield found


def test_they_listen_on_loopback_alone(nodes):
    session, _ = nodes.record()
    addresses = listened_on(processes_in_session(session))
    assert len(addresses) > 10
    assert set(addresses) <= LOOPBACK


def test_the_jobs_api_wants_the_token_which_only_its_owner_can_read(nodes):
    token = nodes.token()
    assert token.stat().st_mode & 0o777 == 0o600
    assert nodes.jobs_api()[0] == 401
    assert nodes.jobs_api(token="0" * 64)[0] == 403
    assert nodes.jobs_api(token=token.read_text())[0] == 200


def test_the_driver_of_a_submitted_job_joins_by_itself(nodes):
    token = nodes.token().read_text()
    entrypoint = f"{sys.executable} -c 'import ray; ray.init(); print(len(ray.nodes()), 1 << 20)'"
    status, job = nodes.jobs_api(token=token, post={"entrypoint": entrypoint})
    assert status == 200
    job_id = job["submission_id"]
    deadline_s = time.monotonic() + 60
    state = "PENDING"
    while state in ("PENDING", "RUNNING") and time.monotonic() < deadline_s:
        time.sleep(0.3)
        state = nodes.jobs_api(job_id, token=token)[1]["status"]
    logs = nodes.jobs_api(f"{job_id}/logs", token=token)[1]["logs"]
    assert state == "SUCCEEDED", logs
    assert "2 1048576" in logs


def test_a_driver_joins_with_the_variables_and_the_address_that_are_printed(nodes):
    (export,) = [line for line in nodes.said.splitlines() if line.startswith("  export ")]
    variables = dict(pair.split("=", 1) for pair in export.split()[1:])
    (launch,) = [line.split()[0] for line in nodes.said.splitlines() if "RAY_ADDRESS=" in line]
    joined = subprocess.run(
        [sys.executable, "-c", JOIN, launch.removeprefix("RAY_ADDRESS=")],
        env={**nodes.environment, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert joined.stdout.splitlines() == ["['127.0.0.1', '127.0.0.1']", "2.0"], joined.stderr


def test_a_second_start_says_that_they_run_already(nodes):
    done = nodes.start()
    assert done.returncode == 2
    assert "already running; end it with:" in done.stderr


def test_after_stop_nothing_is_left(nodes):
    session, folder = nodes.record()
    assert folder.is_dir()
    done = nodes.run("stop")
    assert done.stdout == "stopped\n", done.stderr
    deadline_s = time.monotonic() + 10
    while processes_in_session(session) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert processes_in_session(session) == set()
    assert not folder.exists()
    assert [p.name for p in (nodes.state / "ray-local").iterdir()] == ["log"]
