"""Real runs on a Ray of their own: well, interrupted, and broken in every way a rank can break."""

import math
import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.launch.unsent import unsent_records
from orchestrator.measure.sample import EvalResult, RankFacts, RankSample
from tests.launch.command import Command, write_users_job

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
WELL_JOB = """
name: well
model: {family: mlp}
data: {source: digits, image_size: 8}
training: {steps: 30, global_batch_size: 32, micro_batch_size: 8, eval_every_steps: 10}
zero: {stage: 1}
resources: {workers: 2, device: cpu, cpus_per_worker: 0.5}
tracking: {experiment: tests}
"""
# From the design: what scripts lean on.
ANSWER = {"run_id", "name", "outcome", "steps", "losses", "skipped_steps", "samples_per_s",
          "tokens_per_s", "first_step_s", "forecast", "forecast_error_ratio", "ranks"}  # fmt: skip
RANK = {"rank", "node", "device", "peak_bytes", "phase_peak_bytes", "ledger", "rss_peak_bytes",
        "host_bytes", "nvme_bytes", "samples_per_s", "step_s"}  # fmt: skip
STEP_TIMES = {"median", "p95", "data", "forward", "backward", "communication", "optimizer"}
# The first words of every line that a run may say.
WORDS = re.compile(
    r"$|Plan of |  [a-z]|Starting the ranks|Rank 0 of 2 is ready|step +\d|Evaluation after step "
    r"|rank  node|   [01]  |Look at it with: make ui|then open http|stopping; this takes"
    r"|interrupted; the run was stopped|fullest: rank|slowest: rank|What filled each rank"
    r"|Forecast \(|phase  |init  |forward  |backward  |step  |peak  |at [a-z]+  |params  "
    r"|gradients  |optimizer  |activations  |buffers  |temporaries  |unattributed  |step: forecast "
    r"|rank  peak|  Memory per rank  |  Throughput  |  Where a step goes  |  +peak: measured"
)
SLOW = "model.config={step_s: 0.03}"


@dataclass(frozen=True, kw_only=True)
class Way:
    """What is launched, and what happens to it while it runs."""

    settings: tuple[str, ...] = ()
    steps: int = 20
    well: bool = False
    until_it_ends: Callable[[Command], Any] = Command.wait


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run that has ended."""

    command: Command
    noted: Any
    """What its way gave back."""
    left: list[object]
    """Processes and files that were there the moment it had ended."""


def steps_told(command, *, rank):
    """Steps of a rank in the spool; while the run runs, also those not reported yet."""
    unsent = unsent_records(command.folder / "logs")
    told = [*command.records(), *(unsent if command.process.poll() is None else ())]
    return sorted({r.step for r in told if isinstance(r, RankSample) and r.rank == rank})


def stopped_by(number):
    """Stop it in the middle; gives where it listened, and the seconds from signal to end."""

    def way(command):
        command.wait_until(lambda: "step " in command.stderr)
        listened_on = command.listened_on()
        pressed_s = time.monotonic()
        command.signal_group(number)
        command.wait(timeout_s=30)
        return listened_on, time.monotonic() - pressed_s

    return way


def stopped_while_ray_starts(command):
    command.wait_until(lambda: len(command.left_running()) >= 4)
    command.signal_group(signal.SIGTERM)
    command.signal_group(signal.SIGTERM)
    command.wait(timeout_s=30)


def kill_rank_1(command):
    """Gives its process and the last step it told."""
    command.wait_until(lambda: "step " in command.stderr)
    (pid,) = (r.pid for r in command.records() if isinstance(r, RankFacts) and r.rank == 1)
    # Some reports on, and between two of them.
    command.wait_until(lambda: max(steps_told(command, rank=1)) > 100)
    os.kill(pid, signal.SIGKILL)
    command.wait(timeout_s=40)
    return pid, steps_told(command, rank=1)[-1]


WAYS = {
    "well": Way(well=True),
    "Ctrl-C": Way(settings=(SLOW,), steps=100_000, until_it_ends=stopped_by(signal.SIGINT)),
    "kill": Way(settings=(SLOW,), steps=100_000, until_it_ends=stopped_by(signal.SIGTERM)),
    "early": Way(steps=100_000, until_it_ends=stopped_while_ray_starts),
    "a rank killed": Way(settings=(SLOW,), steps=100_000, until_it_ends=kill_rank_1),
    # The only report before that is the one of the first step.
    "killed unreported": Way(settings=("model.config={mode: killed, at: 9, step_s: 0.02}",)),
    # Where sample 40 comes is defined by the seed, for every number of workers.
    "nan": Way(settings=("data.config={poisoned: 40}",)),
    "mistake": Way(settings=("model.config={mode: mistake, at: 9}",)),
    "crash": Way(settings=("model.config={mode: crash, at: 3}",)),
}


def launch(way: Way, folder: Path) -> Run:
    job = write_users_job(folder)
    settings = (f"training.steps={way.steps}", *way.settings)
    arguments = [word for setting in settings for word in ("--set", setting)]
    if way.well:
        job.write_text(WELL_JOB)
        arguments = []
    command = Command("launch", job, "--json", *arguments, home=folder / "home", forecast=way.well)
    try:
        noted = way.until_it_ends(command)
        left = [*command.left_running(), *command.left_behind()]
    except BaseException:
        command.close()
        raise
    return Run(command=command, noted=noted, left=left)


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """Way -> its run, for what the selected tests look at.

    Two are run at a time and ahead of the tests, since a run waits more than it works.
    """
    asked = {
        item.callspec.params.get("run")
        for item in request.session.items
        if hasattr(item, "callspec") and item.module is request.module
    }
    with ThreadPoolExecutor(2) as pool:
        begun = {
            name: pool.submit(launch, way, tmp_path_factory.mktemp("run"))
            for name, way in WAYS.items()
            if name in asked
        }
        yield begun
        ended = [future for future in begun.values() if not future.cancel()]
    for future in ended:
        if future.exception() is None:
            future.result().command.close()


@pytest.fixture
def run(runs, request):
    return runs[request.param].result()


@pytest.fixture
def command(run):
    return run.command


@pytest.fixture
def well(command):
    return command


def of(*names):
    return pytest.mark.parametrize("run", names, indirect=True)


@of("well")
class TestARunThatGoesWell:
    def test_it_answers_with_what_scripts_lean_on(self, well):
        assert well.exit_code == 0, well.stderr
        answer = well.answer
        assert answer.keys() >= ANSWER
        assert (answer["name"], answer["outcome"], answer["steps"]) == ("well", "ok", 30)
        assert len(answer["losses"]) == 30
        assert answer["losses"][-1] < answer["losses"][0]
        assert answer["samples_per_s"] > 0
        assert 0 < answer["first_step_s"] < well.seconds
        assert [result["step"] for result in answer["evals"]] == [10, 20, 30]

    def test_every_rank_has_its_row(self, well):
        ranks = well.answer["ranks"]
        assert [row["rank"] for row in ranks] == [0, 1]
        for row in ranks:
            assert row.keys() >= RANK
            assert row["step_s"].keys() >= STEP_TIMES
            assert row["device"] == "cpu"
            assert row["peak_bytes"] == max(row["phase_peak_bytes"].values()) > 0
            assert row["rss_peak_bytes"] > row["peak_bytes"]

    def test_every_record_is_in_the_spool_once(self, well):
        records = well.records()
        assert sorted(r.rank for r in records if isinstance(r, RankFacts)) == [0, 1]
        assert [r.step for r in records if isinstance(r, EvalResult)] == [10, 20, 30]
        for rank in (0, 1):
            samples = [r for r in records if isinstance(r, RankSample) and r.rank == rank]
            assert [sample.step for sample in samples] == list(range(1, 31))
            assert all(a.time_unix_s < b.time_unix_s for a, b in pairwise(samples))

    def test_mlflow_has_the_run_with_the_metrics_of_both_ranks(self, well):
        run = "select run_uuid, name, status from runs"
        assert well.tracked(run) == [(well.answer["run_id"], "well", "FINISHED")]
        keys = set(well.tracked("select distinct key from metrics"))
        for name in ("memory_peak_mib", "memory_rss_mib", "throughput_per_rank"):
            assert {f"{name}/rank_00", f"{name}/rank_01"} <= keys
        assert {"train/loss", "eval/accuracy", "throughput/samples_per_s"} <= keys
        losses = well.tracked("select value from metrics where key = 'train/loss' order by step")
        assert losses == pytest.approx(well.answer["losses"])

    def test_mlflow_has_what_the_run_was_made_of(self, well):
        documents = {"job.yaml", "plan.json", "deepspeed.json", "environment.json"}
        assert well.artifacts() >= documents | {"ranks.csv", "summary.json"}
        stage = well.tracked("select value from params where key = 'zero.stage'")
        assert stage == ["1"]

    def test_only_the_run_talks(self, well):
        strangers = [line for line in well.stderr.splitlines() if not WORDS.match(line)]
        assert strangers == []
        assert len(well.stdout.splitlines()) == 1

    def test_the_libraries_talk_into_files(self, well):
        for rank in (0, 1):
            assert "rank process" in (well.folder / "logs" / f"rank_0{rank}.log").read_text()

    def test_nothing_is_left(self, run, well):
        assert run.left == []
        assert list((well.folder / "logs").glob("*unsent*")) == []


@pytest.mark.parametrize(("run", "exit_code"), [("Ctrl-C", 130), ("kill", 143)], indirect=["run"])
def test_a_run_that_is_stopped_ends_in_order(run, command, exit_code):
    _, seconds = run.noted
    assert seconds < 15
    assert command.exit_code == exit_code
    assert command.answer["outcome"] == "interrupted"
    assert [row["rank"] for row in command.answer["ranks"]] == [0, 1]
    assert command.answer["steps"] >= 1
    assert "rank  node" in command.stderr, "what there is of the table is shown"
    assert command.tracked("select status from runs") == ["KILLED"]
    assert "summary.json" in command.artifacts()
    assert [line for line in command.stderr.splitlines() if not WORDS.match(line)] == []
    assert run.left == []


@of("Ctrl-C")
def test_nobody_else_reaches_what_a_run_starts(run):
    listened_on, _ = run.noted
    assert listened_on == {"127.0.0.1"}


@of("early")
def test_a_run_that_is_stopped_while_ray_starts_leaves_nothing(run, command):
    assert command.exit_code == 143
    assert command.answer["outcome"] == "interrupted"
    assert command.tracked("select status from runs") == ["KILLED"]
    assert "Traceback" not in command.stderr
    assert run.left == []


@of("a rank killed")
def test_a_rank_that_is_killed_is_named_with_its_step_and_signal(run, command):
    pid, step = run.noted
    said = f"rank 1 was killed by SIGKILL (pid {pid}) after step {step}; "
    assert command.exit_code == 1
    assert command.answer["outcome"] == "failed"
    assert command.answer["message"].startswith(said)
    assert said in command.stderr
    # It may have died while rank 0 was still in that step.
    assert command.answer["steps"] in (step - 1, step)
    assert command.tracked("select status from runs") == ["FAILED"]
    assert command.artifacts() >= {"logs/rank_01.log.txt", "logs/failure.txt"}
    log = (command.folder / "logs" / "rank_01.log").read_text()
    assert log.count("rank process") == 1, "it was started again"
    assert run.left == []


@of("killed unreported")
def test_a_rank_that_is_killed_keeps_what_it_had_not_reported(run, command):
    assert command.answer["message"].startswith("rank 1 was killed by SIGKILL")
    assert " after step 8; " in command.answer["message"]
    assert command.answer["steps"] == 8
    for rank in (0, 1):
        assert steps_told(command, rank=rank) == list(range(1, 9))
    losses = command.tracked("select value from metrics where key = 'train/loss' order by step")
    assert losses == pytest.approx(command.answer["losses"])
    assert list((command.folder / "logs").glob("*unsent*")) == []
    assert run.left == []


@of("nan")
def test_a_loss_that_is_not_a_number_names_its_step_and_rank(run, command):
    assert command.exit_code == 1
    assert command.answer["outcome"] == "diverged"
    found = re.match(r"the loss is nan in step (\d) on rank ([01]); ", command.answer["message"])
    assert found, command.answer["message"]
    # The 64 samples are seen once in 8 steps, and what was before the bad one is kept.
    assert 1 <= int(found[1]) <= 8
    assert command.answer["steps"] == int(found[1]) - 1
    assert all(map(math.isfinite, command.answer["losses"]))
    assert command.tracked("select status from runs") == ["FAILED"]
    assert "Traceback" not in command.stderr
    assert run.left == []


@of("mistake")
def test_a_users_mistake_on_one_rank_is_told_in_its_words(run, command):
    message = "rank 1 failed after step 8: ValueError: the user's own mistake; see logs/failure.txt"
    assert command.exit_code == 1
    assert command.answer["outcome"] == "failed"
    assert command.answer["message"] == message
    assert command.answer["steps"] == 8
    *_, last_but_one, last = command.stderr.splitlines()
    assert last_but_one == message
    details = (command.folder / "artifacts" / "logs" / "failure.txt").read_text()
    assert last == f"Details: {command.folder / 'artifacts' / 'logs' / 'failure.txt'}"
    assert re.search(r"users.py\", line \d+, in forward", details)
    assert "logs/rank_01.log.txt" in command.artifacts()
    assert "Traceback" not in command.stderr
    assert run.left == []


@of("crash")
def test_a_rank_that_crashes_is_named_with_its_signal(run, command):
    assert command.exit_code == 1
    found = re.match(
        r"rank 1 was killed by SIGABRT (\(pid \d+\) )?after step 2; see where in the log of rank 1",
        command.answer["message"],
    )
    assert found, command.answer["message"]
    assert (command.folder / "logs" / "ray").is_dir(), "Ray's own words are kept"
    assert run.left == []
