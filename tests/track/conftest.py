"""A fresh MLflow database, made once for all tests by two processes that race each other for it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.measure.sample import EvalResult, RankFacts, RankSample
from orchestrator.track.base import RunStart
from orchestrator.track.environment import mlflow_environment
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.store import Store, embedded_store
from tests.track.in_a_browser import Page

FACTS = RankFacts(
    rank=0, world_size=2, node="node-a", device="cpu", pid=100, time_unix_s=1000.0, n_params=50,
    total_steps=4, n_train_samples=64, n_eval_samples=16, startup_s={}, init_peak_bytes=2**20,
    init_peak_ledger=None, init_edge_ledger=None, init_rss_peak_bytes=None, init_pss_bytes=None,
    exact_rss=False,
)  # fmt: skip
SAMPLE = RankSample(
    rank=0, step=1, time_unix_s=1001.0, loss=2.0, lr=0.1, grad_norm=0.5, n_samples=8,
    n_tokens=None, step_s=0.5, data_s=0.05, forward_s=0.1, backward_s=0.2, optimizer_s=0.1,
    communication_s=None, logging_s=0.03, checkpoint_s=None, skipped_steps=0, rss_peak_bytes=2**20,
    probe=False, phase_peak_bytes=None, probed=None, host_bytes=None, nvme_bytes=None,
    resident=None, container_peak_bytes=None, cuda=None, gpu=None, model_flops=None,
    peak_flops_per_s=None,
)  # fmt: skip
START = RunStart(
    key="small-1",
    experiment="small/question",
    name="small-zero2",
    start_time_ms=1_000_000,
    params={"training.steps": "4", "odd name!": "x" * 7000},
    tags={"strategy": "zero2"},
)
CREATE = """
import sys
from pathlib import Path
from orchestrator.track.store import create_store
create_store(Path(sys.argv[1]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What became of a fresh database that several processes opened at once."""

    database: Path
    exit_codes: list[int]
    words: list[str]


def records_of(n_steps: int, *, world_size: int = 2) -> list[RankFacts | RankSample | EvalResult]:
    """What a run of some steps reports, rank by rank, and one evaluation."""
    records: list[RankFacts | RankSample | EvalResult] = []
    for rank in range(world_size):
        records.append(replace(FACTS, rank=rank, world_size=world_size))
        records += [
            replace(SAMPLE, rank=rank, step=step, time_unix_s=1000.0 + step)
            for step in range(1, n_steps + 1)
        ]
    records.append(
        EvalResult(
            step=n_steps, time_unix_s=2000.0, loss=1.0, accuracy=0.5, n_samples=16, seconds=0.1
        )
    )
    return records


@pytest.fixture
def run_records() -> Callable[..., list[RankFacts | RankSample | EvalResult]]:
    return records_of


@pytest.fixture
def sample() -> Callable[..., RankSample]:
    return lambda **changes: replace(SAMPLE, **changes)


@pytest.fixture
def run_start() -> RunStart:
    return START


@pytest.fixture(scope="session", autouse=True)
def _quick_and_quiet_mlflow() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_environment().items():
            patch.setenv(name, value)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="session")
def race(tmp_path_factory: pytest.TempPathFactory) -> Race:
    database = tmp_path_factory.mktemp("race") / "a b#c%20d ü?" / "mlflow.db"
    left_by_a_killed_process = database.parent / "mlflow.db.partial" / "mlflow.db"
    left_by_a_killed_process.parent.mkdir(parents=True)
    left_by_a_killed_process.write_bytes(b"half a schema")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CREATE, str(database)],
            env={**os.environ, **mlflow_environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    words = [process.communicate(timeout=120)[0] for process in processes]
    return Race(database=database, exit_codes=[p.returncode for p in processes], words=words)


@pytest.fixture
def mlflow_store(race: Race, tmp_path: Path) -> Store:
    """An empty embedded store of the test's own."""
    store = embedded_store(tmp_path / "state")
    assert store.database is not None
    store.database.parent.mkdir()
    shutil.copy(race.database, store.database)
    return store


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A store of its own, served by `orchestrator ui`."""
    home = tmp_path_factory.mktemp("home")
    # The database is there before the server looks for it.
    tracker = MlflowTracker(embedded_store(home))
    port = _free_port()
    with (home / "ui.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "ui", "--home", str(home), "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    assert server.stdout is not None
    try:
        said = ""
        while "MLflow is at" not in said:
            said = server.stdout.readline()
            assert said, (home / "ui.log").read_text()
        yield Page(url=f"http://127.0.0.1:{port}", tracker=tracker, home=home)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        server.stdout.close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless chromium with a fresh profile."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        missing = "chromium is not installed: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1600,1200",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()
