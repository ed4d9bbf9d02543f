"""`report` as a person gives it, on stores that several people have filled."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.launch.comparison.report import COMPARISON_DOCUMENT, CONTROLS_DOCUMENT
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.mlflow_read import reading_environment
from orchestrator.track.store import Store, embedded_store
from tests.compare.made_up import entry
from tests.launch.stored_runs import Shelf

H100 = {"devices": ("NVIDIA H100 80GB HBM3",), "versions": {"torch": "2.11.0"}}
RESNET = {"model": {"family": "resnet", "config": {"depths": [1, 1, 1]}}}
MOVED = [2.0, 1.5, 1.26, 1.15]


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch, tmp_path):
    for name, value in reading_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("ORCHESTRATOR_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


# Arguments -> how the one line begins that is told.
WRONG = {
    "": "say which runs: --experiment NAME, or --run ID once or more; as in make report",
    "--baseline zero0": "say which runs: ",
    "--experiment x": "there is no tracking store ",
    "--run 1234": "there is no tracking store ",
    "--run": "argument --run: expected at least one argument",
    "--experiment x --uri mlruns": "'mlruns' is no tracking store; write http://host:port, ",
    "--experiment x --uri sqlite:////no/such/folder/x.db": "there is no folder /no/such",
    "--experiment x --uri sqlite:///x.db": "there is no tracking store ",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_what_cannot_be_reported_is_told_in_one_line(arguments, capsys, tmp_path):
    home = tmp_path / "home"
    assert main(["report", *arguments.split(), "--home", str(home), "--json"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(WRONG[arguments])
    assert json.loads(said.out) == {"error": said.err.strip(), "exit_code": 2}
    assert list(tmp_path.iterdir()) == [], "something was made"


def test_a_store_that_does_not_answer_is_told_with_exit_code_1(capsys, tmp_path):
    # Port 9 discards, where anything listens at all.
    assert main(["report", "--experiment", "x", "--uri", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == (
        "the tracking store at http://127.0.0.1:9 does not answer: Connection refused\n"
    )
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A state folder in which several people have run something."""

    home: Path
    comparison: str
    bobs: str
    """A run of bob's in the experiment `people`."""
    carols: str
    """A run of carol's in `mixed`, with another model."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    home = tmp_path_factory.mktemp("home") / "state"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in reading_environment().items():
            patch.setenv(name, value)
        tracker = MlflowTracker(embedded_store(home))
        people = Shelf(tracker, home / "outboxes", experiment="people")
        for strategy, mib in (("zero0", 8), ("zero1", 4), ("zero2", 3)):
            people.put(entry(strategy, ledger_mib={"optimizer": mib}, commit="a" * 40))
        versions = {"versions": {"torch": "2.11.0"}}
        bobs = people.put(
            entry("zero2", ledger_mib={"optimizer": 3}, commit="b" * 40, circumstances=versions),
            user="bob",
        )
        people.put(entry("zero3"), name="still going", status=None)
        for n in range(7):
            people.put(None, name=f"lost{n}")
        mixed = Shelf(tracker, home / "outboxes", experiment="mixed/question")
        mixed.put(entry("zero1"))
        mixed.put(entry("zero1", device="cuda", circumstances=H100), user="bob")
        carols = mixed.put(entry("zero2", job=RESNET), user="carol")
        told = {"name": "made-up", "baseline": "zero1", "varied": [], "strategies": ["a", "zero1"]}
        comparison, key = mixed.put_comparison(
            files={COMPARISON_DOCUMENT: told, CONTROLS_DOCUMENT: {"fp32": MOVED}}
        )
        far = (2.0, 1.5, 1.255, 1.13)
        mixed.put(entry("zero1"), name="zero1", parent=key)
        mixed.put(entry("zero3", losses=far), name="a", parent=key)
    return Filled(home=home, comparison=comparison, bobs=bobs, carols=carols)


@pytest.fixture
def reported(filled, tmp_path, capsys):
    """Report; gives the answer and what a person reads."""

    def report(*arguments, exit_code=0):
        home = ["--home", str(tmp_path / "mine"), "--uri", f"sqlite:///{filled.home}/mlflow.db"]
        assert main(["report", *home, "--json", *arguments]) == exit_code
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return report


@pytest.mark.ray
def test_runs_of_two_people_are_ranked_and_what_differs_is_said(reported, tmp_path):
    answer, text = reported("--experiment", "people", "--baseline", "zero1")
    rows = {row["strategy"]: row for row in answer["rows"]}
    assert list(rows) == ["zero0", "zero1", "zero2-alice", "zero2-bob"]
    assert (answer["baseline"], answer["not_ranked"]) == ("zero1", [])
    assert answer["winners"]["smallest"] == "zero2-alice"
    assert rows["zero0"]["peak_bytes"] == 9 * 2**20
    assert all(len(row["run_id"]) == 32 for row in rows.values())
    assert answer["differences"] == [
        "torch: 2.13.0 (zero0, zero1, zero2-alice), 2.11.0 (zero2-bob)",
        f"commit: {'a' * 12} (zero0, zero1, zero2-alice), {'b' * 12} (zero2-bob)",
        "user: alice (zero0, zero1, zero2-alice), bob (zero2-bob)",
    ]
    assert len(answer["left_out"]) == 8
    lines = text.splitlines()
    assert lines[0].startswith("people: 4 runs by alice and bob, started 2026-")
    assert "still going" in lines[2]
    assert lines[7] == "  and 3 more"
    assert all(difference in text.replace("\n    ", " ") for difference in answer["differences"])
    report = Path(answer["report"])
    assert report.parts[-2:] == ("report", "comparison.md")
    assert report.parent.parent.parent == tmp_path / "mine" / "reports"
    assert report.parent.parent.name.endswith("-people")
    markdown = report.read_text(encoding="utf-8")
    assert markdown.startswith("# people: 4 sharding strategies compared")
    assert f"zero2-bob {rows['zero2-bob']['run_id'][:8]}" in markdown
    with (report.parent / "comparison.csv").open(newline="") as file:
        assert [row["user"] for row in csv.DictReader(file)] == ["alice"] * 3 + ["bob"]
    plots = {path.name for path in (report.parent / "plots").iterdir()}
    assert {"memory_throughput.png", "memory_throughput.svg", "ledger.png"} <= plots
    assert not (tmp_path / "mine" / "mlflow.db").exists()


@pytest.mark.ray
def test_what_cannot_be_compared_is_reported_and_not_ranked(reported):
    answer, text = reported("--experiment", "mixed/question")
    assert set(answer["winners"].values()) == {None}
    assert not any(row["pareto"] for row in answer["rows"])
    names = [row["strategy"] for row in answer["rows"]]
    assert (names[1:3], names[3:]) == (["zero1-cuda", "zero2"], ["a", names[-1]])
    device, model = answer["not_ranked"]
    assert device.startswith("another device: cpu (")
    assert device.endswith("NVIDIA H100 80GB HBM3 (zero1-cuda)")
    assert model.startswith("another model.family: mlp (")
    assert model.endswith("resnet (zero2)")
    assert "not ranked" in text.splitlines()[1]
    assert Path(answer["report"]).parents[1].name.endswith("-mixed_question")
    assert "These runs are **not ranked**" in Path(answer["report"]).read_text(encoding="utf-8")


@pytest.mark.ray
def test_a_comparison_is_reported_as_it_judged_itself(reported, filled):
    answer, text = reported("--run", filled.comparison)
    assert [row["strategy"] for row in answer["rows"]] == ["a", "zero1"]
    assert answer["baseline"] == "zero1"
    assert answer["rows"][0]["same_loss"] == "rounding"
    assert text.startswith("made-up: 2 runs by alice, started ")
    assert answer["left_out"] == []


@pytest.mark.ray
def test_single_runs_of_two_experiments_are_held_against_each_other(reported, filled):
    answer, _ = reported("--run", filled.bobs, filled.carols, "--run", filled.bobs)
    assert [row["strategy"] for row in answer["rows"]] == ["zero2-mlp", "zero2-resnet"]
    assert answer["baseline"] == "zero2-mlp"
    assert [line.split(":")[0] for line in answer["not_ranked"]] == ["another model.family"]


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--experiment peple", "no experiment 'peple'; did you mean 'people'? there are "),
        ("--experiment Default", "experiment 'Default' has no runs yet; launch a job first"),
        ("--run 12ab", "no run '12ab'; give the id that MLflow's page shows"),
        ("--experiment people --baseline zero4", "--baseline zero4: no run is called so; did you"),
    ],
)
def test_what_the_store_has_not_is_told_in_one_line(arguments, words, reported, tmp_path):
    answer, said = reported(*arguments.split(), exit_code=2)
    assert said.startswith(words)
    assert len(said.splitlines()) == 1
    assert answer == {"error": said.strip(), "exit_code": 2}
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def server(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An `mlflow server` on the same database, with artifacts of new experiments behind it."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", f"sqlite:///{filled.home}/mlflow.db"),
        *("--artifacts-destination", str(folder / "artifacts")),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline_s = time.monotonic() + 120
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline_s
            try:
                opener.open(f"{uri}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.ray
def test_a_server_gives_what_lies_behind_it_and_what_lies_on_a_shared_disk(
    server, filled, tmp_path, capsys
):
    tracker = MlflowTracker(Store(uri=server, database=None, artifact_root=None))
    served = Shelf(tracker, tmp_path / "outboxes", experiment="served")
    behind = [served.put(entry(strategy), user="dora") for strategy in ("zero1", "zero3")]
    capsys.readouterr()
    home = ["--home", str(tmp_path / "mine"), "--json"]
    command = ["report", "--uri", server, "--experiment", "served", "--run", filled.bobs]
    assert main([*command, *home]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert [row["run_id"] for row in answer["rows"]] == [*behind, filled.bobs]
    assert [row["strategy"] for row in answer["rows"]] == ["zero1", "zero3", "zero2"]
    assert answer["not_ranked"] == []
    assert said.err.startswith("served, people: 3 runs by dora and bob, ")
    assert server in Path(answer["report"]).read_text(encoding="utf-8")
