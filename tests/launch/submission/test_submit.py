"""`submit`, `status`, `logs` and `stop` on a real cluster of two nodes, as a person uses them."""

import contextlib
import json
import re
import signal
import sqlite3
import time
from importlib.metadata import version

import pytest

from tests.cluster.test_mlflow_sh import Server
from tests.cluster.test_ray_local import Nodes
from tests.launch.command import Command, write_users_job
from tests.worker.ranks import EXTENSIONS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
SECRET = "planted-7f3a9c"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes of one CPU each, with a token."""
    found = Nodes(tmp_path_factory.mktemp("home"))
    found.environment |= {
        "TORCH_EXTENSIONS_DIR": str(EXTENSIONS),
        "ORCHESTRATOR_HOME": str(found.state),
        "SECRET_OF_THE_NODES": SECRET,
    }
    with found.running():
        yield found


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """A server for records, as cluster/mlflow.sh starts it."""
    with Server(tmp_path_factory.mktemp("server")).running() as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a job of the user's own."""
    path = tmp_path_factory.mktemp("mine")
    write_users_job(path)
    return path


@pytest.fixture
def give(nodes, folder):
    """Give a command to the cluster, from the folder of the job."""
    given = []

    def command(verb, *arguments, to=None, **environment):
        address = to or f"http://127.0.0.1:{nodes.dashboard_port}"
        known = {
            "RAY_AUTH_TOKEN": nodes.token().read_text(),
            "HOME": str(nodes.home),
            "MY_SECRET": SECRET,
            **environment,
        }
        one = Command(
            *(verb, *arguments, "--address", address),
            home=folder / "home",
            cwd=folder,
            **known,
        )
        given.append(one)
        return one

    yield command
    for one in given:
        one.close()


def submit(give, *arguments, **environment):
    return give("submit", "job.yaml", "--no-forecast", *arguments, **environment)


def found_in(text, pattern):
    match = re.search(pattern, text)
    assert match, text
    return match[1]


@pytest.fixture(scope="module")
def job_ids():
    return {}


def test_a_job_that_goes_well_says_what_a_launch_says_and_ends_with_0(give, nodes, job_ids):
    command = submit(give, "--set", "training.optimizer.lr=0.002").wait()
    said = command.stdout + command.stderr
    assert command.exit_code == 0, said
    for line in (r"Submitted users-\d{8}-\d{6}-\d{3} to http://127.0.0.1:\d+: .* in \d+\.\d s, "
                 r"2 workers on cpu",
                 r"Plan of users",
                 r"rank +node .*"):  # fmt: skip
        assert re.search(f"^{line}$", said, re.MULTILINE), (line, said)
    assert "Traceback" not in said
    assert "entrypoint" not in said
    job_ids["well"] = found_in(said, r"Submitted (\S+) to")
    (run,) = (nodes.state / "runs").iterdir()
    assert json.loads((run / "artifacts" / "summary.json").read_text())["outcome"] == "ok"


def test_a_secret_of_the_environment_is_nowhere_on_the_cluster(nodes, job_ids):
    """Neither in a log, a parameter, a tag, an artifact, nor in what Ray tells of the job."""
    assert "well" in job_ids
    _, ray_folder = nodes.record()
    places = [*nodes.state.rglob("*"), *ray_folder.rglob("*")]
    files = [path for path in places if path.is_file() and path.stat().st_size < 2**24]
    assert len(files) > 20
    token = nodes.token().read_text()
    for secret in (SECRET, token):
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        status, told = nodes.jobs_api(token=token)
        assert status == 200
        assert secret not in json.dumps(told)
    assert job_ids["well"] in json.dumps(told)


def test_overrides_are_not_in_the_command_that_everybody_sees(nodes, job_ids):
    _, told = nodes.jobs_api(token=nodes.token().read_text())
    entrypoint = next(one for one in told if one["submission_id"] == job_ids["well"])["entrypoint"]
    assert "orchestrator launch" in entrypoint
    assert "lr=0.002" not in entrypoint


def page(home):
    """What MLflow's pages show of the newest run: names of metrics, parameters, tags, artifacts."""
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:

        def column(query, *values):
            return [row[0] for row in database.execute(query, values)]

        (run,) = column("select run_uuid from runs order by start_time desc limit 1")
        assert column("select status from runs where run_uuid = ?", run) == ["FINISHED"]
        rows = {
            kind: set(column(f"select distinct key from {kind} where run_uuid = ?", run))
            for kind in ("metrics", "params", "tags")
        }
    (root,) = home.rglob(f"{run}/artifacts")
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    return {**rows, "artifacts": files}


def test_both_ways_of_tracking_end_in_the_pages_of_a_local_launch(
    give, nodes, folder, mlflow_server, tmp_path
):
    """The embedded store on the head's disk, and a server."""
    embedded = page(nodes.state)
    override = ("--set", "training.optimizer.lr=0.002")
    local = Command("launch", "job.yaml", *override, home=tmp_path, cwd=folder)
    try:
        uri = f"tracking.uri=http://127.0.0.1:{mlflow_server.port}"
        command = submit(give, "--set", uri).wait()
        assert command.exit_code == 0, command.stdout + command.stderr
        assert local.wait().exit_code == 0, local.stderr
    finally:
        local.close()
    own, served = page(local.home), page(mlflow_server.state / "mlflow-server")
    assert {"memory_peak_mib/rank_00", "memory_peak_mib/rank_01", "train/loss"} <= own["metrics"]
    assert {"ranks.csv", "summary.json", "plan.json"} <= own["artifacts"]
    assert embedded == own
    assert served == own


def test_the_address_of_an_mlflow_server_is_told_as_what_it_is_not(give, mlflow_server):
    command = give("submit", "job.yaml", to=f"http://127.0.0.1:{mlflow_server.port}").wait()
    assert command.exit_code == 2
    assert "is no Ray dashboard; give the address of one" in command.stderr
    assert len(command.stderr.splitlines()) == 1
    assert command.seconds < 10


def test_logs_shows_it_again_and_status_says_how_it_ended(give, job_ids):
    logs = give("logs", job_ids["well"]).wait()
    assert logs.exit_code == 0
    assert "Plan of users" in logs.stdout
    status = give("status", job_ids["well"], "--json").wait()
    assert (status.answer["status"], status.answer["exit_code"]) == ("succeeded", 0)
    listed = give("status").wait()
    assert f"{job_ids['well']}  succeeded, exit code 0, submitted " in listed.stdout


def test_not_waited_for_it_says_how_to_go_on_and_logs_ends_as_the_job_does(give):
    """With --json the job's answer is all on stdout, here and there."""
    mistake = ("--no-wait", "--json", "--set", "model.config={mode: mistake}")
    command = submit(give, *mistake).wait()
    assert command.exit_code == 0
    logs = give("logs", command.answer["job_id"], "--json").wait()
    assert logs.exit_code == 1
    assert logs.answer["outcome"] == "failed"
    assert logs.answer["message"].startswith("rank 1 failed after step")
    assert logs.answer["job_id"] == command.answer["job_id"]
    assert "Plan of users" in logs.stderr


def test_a_bad_file_never_travels(give):
    command = submit(give, "--set", "training.steps=-1").wait()
    assert command.exit_code == 2
    assert "training.steps" in command.stderr
    assert command.seconds < 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["resources.workers=50", "training.global_batch_size=200"], "50 workers x 0.5 CPUs need"),
        (["resources.cpus_per_worker=1.5", "resources.workers=1"], "have whole places for 0"),
    ],
)
def test_what_the_cluster_has_no_place_for_is_refused_within_ten_seconds(give, changes, words):
    command = submit(give, *(word for pair in changes for word in ("--set", pair))).wait()
    assert command.exit_code == 3, command.stderr
    assert words in command.stderr
    assert command.seconds < 10


def test_a_wrong_token_is_one_line_within_ten_seconds(give):
    command = submit(give, RAY_AUTH_TOKEN="0" * 64).wait()
    assert command.exit_code == 2
    assert len(command.stderr.splitlines()) == 1
    assert "refuses this token" in command.stderr
    assert command.seconds < 10


def installed(folder, **versions):
    """Put other versions of libraries in front, as far as their metadata goes."""
    for name, number in versions.items():
        metadata = folder / f"{name}-{number}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    return {"PYTHONPATH": str(folder)}


def test_a_cluster_of_another_ray_version_is_one_line_within_ten_seconds(give, tmp_path):
    command = submit(give, **installed(tmp_path, ray="2.59.0")).wait()
    assert command.exit_code == 2
    assert len(command.stderr.splitlines()) == 1
    assert "runs Ray 2.60.0 and this is 2.59.0; install the same on both" in command.stderr
    assert command.seconds < 10


def test_other_versions_of_libraries_are_a_line_each_and_exit_code_2_arrives(give, tmp_path):
    there = {name: version(name).partition("+")[0] for name in ("torch", "deepspeed")}
    command = submit(give, **installed(tmp_path, torch="2.1.0", deepspeed="0.1.0")).wait()
    assert command.exit_code == 2, command.stdout
    said = command.stdout.splitlines()
    for name, here in (("torch", "2.1.0"), ("deepspeed", "0.1.0")):
        line = rf"{name} {re.escape(there[name])}\S* on the cluster and {here} where the job was .*"
        assert len([one for one in said if re.fullmatch(line, one)]) == 1, said


def test_ctrl_c_stops_following_and_not_the_job_which_stop_ends(give):
    command = submit(give, "--set", "model.config={step_s: 0.3}", "--set", "training.steps=400")
    command.wait_until(lambda: re.search(r"step +\d+", command.stdout), timeout_s=60)
    command.signal_group(signal.SIGINT)
    command.wait(timeout_s=20)
    assert command.exit_code == 130
    told = re.search(r"No longer followed; (\S+) goes on\. Later: make status", command.stderr)
    assert told, command.stderr
    time.sleep(1)
    running = give("status", told[1], "--json").wait()
    assert running.answer["status"] == "running"
    stopped = give("stop", told[1], "--json").wait()
    assert stopped.exit_code == 0
    assert stopped.answer["status"] == "stopped"


def test_a_job_that_is_not_there_is_named(give):
    command = give("status", "nobody-1").wait()
    assert command.exit_code == 2
    assert "has no job nobody-1; see make status" in command.stderr
