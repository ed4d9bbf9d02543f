"""mlflow.sh for real, on sqlite: to whom it answers, what it keeps, and that it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.cluster.files import CLUSTER

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
API = "/api/2.0/mlflow/experiments/search?max_results=1"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, home):
        self.state = home / "state"
        self.port = free_port()
        self.log = home / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(CLUSTER / "mlflow.sh", "--port", str(self.port)),
                    *("--allowed-hosts", "mlflow.example.com"),
                ],
                env={
                    **os.environ,
                    "PYTHON": sys.executable,
                    "ORCHESTRATOR_HOME": str(self.state),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self, path, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as err:
            with err:
                return err.code

    def wait_until_up(self):
        deadline_s = time.monotonic() + 120
        while True:
            try:
                assert self.status("/health") == 200
            except OSError:
                assert time.monotonic() < deadline_s
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.3)
            else:
                return

    @contextlib.contextmanager
    def running(self):
        """Up, and ended in the end, if it has not ended by itself."""
        try:
            self.wait_until_up()
            yield self
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("home")).running() as found:
        yield found


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "mlflow.example.com"])
def test_it_answers_to_its_own_names(server, host):
    assert server.status(API, Host=f"{host}:{server.port}") == 200


@pytest.mark.parametrize("host", ["evil.example.com", "10.1.2.3", "mlflow.example.com.evil.net"])
def test_it_refuses_names_that_are_not_its_own(server, host):
    assert server.status(API, Host=host) == 403


def test_what_it_keeps_is_for_its_owner_alone(server):
    folder = server.state / "mlflow-server"
    assert (folder / "mlflow.db").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_it_is_two_processes_and_ends_when_asked(server):
    session = server.process.pid
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--sid", str(session)], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.split()) == 2
    server.process.terminate()
    server.process.wait(20)
    left = subprocess.run(
        ["ps", "-o", "pid=", "--sid", str(session)], capture_output=True, check=False
    )
    assert left.stdout.split() == []
