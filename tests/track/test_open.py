import os
import socket
from itertools import pairwise

import pytest

from orchestrator.errors import UsageError
from orchestrator.track.environment import mlflow_environment, server_environment
from orchestrator.track.open import choose_port, run_ui, server_command
from orchestrator.track.store import embedded_store


@pytest.fixture
def busy_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_in_use_is_refused_with_a_free_one(busy_port):
    with pytest.raises(UsageError, match=rf"^port {busy_port} is in use; \d+ is free$") as caught:
        choose_port(busy_port)
    suggested = int(str(caught.value).split()[-3])
    assert choose_port(suggested) == suggested


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(UsageError, match="is out of range"):
        choose_port(port)


def test_without_a_port_a_free_one_is_taken():
    port = choose_port(None)
    assert port >= 5000
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()
        assert choose_port(None) > port


def test_nothing_is_started_or_made_when_the_port_is_in_use(busy_port, tmp_path):
    said: list[str] = []
    with pytest.raises(UsageError, match="is in use"):
        run_ui(tmp_path / "state", port=busy_port, show=said.append, environment=os.environ)
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written: Not a directory$"):
        run_ui(tmp_path / "state", port=None, show=print, environment=os.environ)


def test_the_server_listens_to_this_machine_alone(tmp_path):
    command = server_command(embedded_store(tmp_path), port=5001)
    settings = dict(pairwise(command))
    assert settings["--host"] == "127.0.0.1"
    assert settings["--port"] == "5001"
    assert settings["--workers"] == "1"
    hosts = settings["--allowed-hosts"].split(",")
    assert {host.removesuffix(":*") for host in hosts} == {"localhost", "127.0.0.1"}


def test_no_telemetry_is_sent_and_no_job_is_run_over_http():
    assert mlflow_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert server_environment()["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert server_environment()["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
