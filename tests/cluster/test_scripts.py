"""The shell scripts: their shell, their mistakes told before anything starts, what they pass on."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, SCRIPTS

# Stands where Python does: says that every module is there, and prints what it is told to run.
STAND_IN = """#!/bin/sh
case "$*" in *find_spec*) exit ${MODULE_IS_MISSING:-0} ;; *token_hex*) exec printf made-up ;; esac
echo "$@"
env
"""


@pytest.fixture
def run(tmp_path):
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)

    def call(script, *arguments, **environment):
        return subprocess.run(
            [CLUSTER / script, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHON": str(stand_in),
                "ORCHESTRATOR_HOME": str(tmp_path / "state"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


@pytest.fixture
def busy_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield str(server.getsockname()[1])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_run_and_has_no_slip_that_shellcheck_knows(script):
    path = CLUSTER / script
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)
    places = (str(Path(sys.executable).parent), os.environ["PATH"])
    shellcheck = shutil.which("shellcheck", path=os.pathsep.join(places))
    assert shellcheck, "shellcheck is missing; it comes with make setup"
    checked = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
    assert checked.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others read and write"),
        (["--host", "0.0.0.0", "--allowed-hosts", "a.example"], "lets others read and write"),
        (["--host", "10.0.0.7", "--open"], "name the hosts it may be called by"),
        (["--allowed-hosts", "*.example.com"], "write whole names"),
        (["--database", "postgresql://me:hunter2@db/mlflow"], "leave the password out"),
        (["--database", "mysql://me@db/mlflow"], "write postgresql://USER@HOST/NAME"),
        (["--password-file", "/nowhere"], "/nowhere cannot be read"),
        (["--port"], "--port: a value is missing"),
        (["--disable-security-middleware", "x"], "--disable-security-middleware: unknown"),
    ],
)
def test_mlflow_is_not_started_with_a_mistake(run, arguments, words):
    done = run("mlflow.sh", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_the_password_is_not_repeated_where_it_is_refused(run):
    done = run("mlflow.sh", "--database", "postgresql://me:hunter2@db/mlflow")
    assert "hunter2" not in done.stderr


def test_a_password_that_others_can_read_is_refused(run, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    secret.chmod(0o644)
    done = run("mlflow.sh", "--password-file", str(secret))
    assert done.returncode == 2
    assert "can be read by others; run: chmod 600" in done.stderr


def started(done):
    """Options and variables that MLflow was given."""
    assert done.returncode == 0, done.stderr
    command, *variables = done.stdout.splitlines()
    words = command.split()
    assert words[:3] == ["-m", "mlflow", "server"]
    return dict(pairwise(words)), dict(v.split("=", 1) for v in variables if "=" in v)


def test_mlflow_listens_to_this_machine_and_runs_no_jobs_over_http(run, tmp_path):
    options, variables = started(run("mlflow.sh"))
    assert options["--host"] == "127.0.0.1"
    assert options["--workers"] == "1"
    hosts = options["--allowed-hosts"].split(",")
    assert {host.removesuffix(":*") for host in hosts} == {"localhost", "127.0.0.1"}
    assert options["--backend-store-uri"] == f"sqlite:///{tmp_path}/state/mlflow-server/mlflow.db"
    assert options["--artifacts-destination"] == f"file://{tmp_path}/state/mlflow-server/artifacts"
    assert variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_answers_to_the_names_it_is_told_with_and_without_a_port(run):
    options, _ = started(run("mlflow.sh", "--allowed-hosts", "a.example,b.example"))
    named = {"a.example", "a.example:*", "b.example", "b.example:*"}
    assert named <= set(options["--allowed-hosts"].split(","))


def test_postgresql_is_spoken_to_through_psycopg_whatever_sqlalchemy_prefers(run):
    options, _ = started(run("mlflow.sh", "--database", "postgresql://me@db/mlflow"))
    assert options["--backend-store-uri"] == "postgresql+psycopg://me@db/mlflow"


@pytest.mark.parametrize(
    ("arguments", "package"),
    [(["--database", "postgresql://me@db/x"], "psycopg"), (["--password-file", "x"], "Flask-WTF")],
)
def test_a_missing_package_is_named(run, arguments, package):
    done = run("mlflow.sh", *arguments, MODULE_IS_MISSING="1")
    assert done.returncode == 2
    assert f"-m pip install '{package}" in done.stderr


def test_a_login_reaches_mlflow_by_its_environment_alone(run, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("a horse, a battery\n")
    secret.chmod(0o600)
    where = ("--host", "0.0.0.0", "--allowed-hosts", "a.example")
    done = run("mlflow.sh", *where, "--password-file", str(secret))
    options, variables = started(done)
    assert options["--app-name"] == "basic-auth"
    assert variables["MLFLOW_AUTH_ADMIN_PASSWORD"] == "a horse, a battery"
    assert "horse" not in done.stdout.splitlines()[0] + done.stderr
    settings = (tmp_path / "state" / "mlflow-server" / "auth.ini").read_text()
    assert f"database_uri = sqlite:///{tmp_path}/state/mlflow-server/users.db" in settings
    assert "horse" not in settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cpus", "0"], "--cpus 0: not a number above 0"),
        (["--port", "x"], "--port x: not a number above 0"),
        (["--nodes", "0"], "--nodes 0: not a number above 0"),
        (["--gpus", "3"], "--gpus: unknown"),
        (["restart"], "restart: neither start nor stop"),
    ],
)
def test_two_nodes_are_not_started_with_a_mistake(run, arguments, words):
    done = run("ray-local.sh", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("option", ["--port", "--dashboard-port"])
def test_a_port_in_use_is_named_and_nothing_is_made(run, tmp_path, busy_port, option):
    done = run("ray-local.sh", option, busy_port)
    assert done.returncode == 2
    assert f"port {busy_port} is in use; choose others" in done.stderr
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / ".ray").exists()


def test_stop_leaves_a_process_alone_that_has_only_the_same_number(run, tmp_path):
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        record = tmp_path / "state" / "ray-local" / "started"
        record.parent.mkdir(parents=True)
        kept = tmp_path / "kept"
        kept.mkdir()
        record.write_text(f"{other.pid} 1 {kept}\n")
        done = run("ray-local.sh", "stop")
        assert done.returncode == 0, done.stderr
        assert "nothing that" in done.stdout
        assert other.poll() is None
        assert kept.exists()
        assert not record.exists()
        other.kill()
