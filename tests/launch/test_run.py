"""One run around a launcher of the test's own: whatever it does, the run is recorded and ended."""

import json
import os
import signal
import time

import pytest

from orchestrator.errors import InfeasibleError, UsageError
from orchestrator.launch.failure import RankError, RunError, judge
from orchestrator.launch.home import open_home
from orchestrator.launch.open_run import Setting
from orchestrator.launch.run import run_plan
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.measure.sample import RankSample, Record
from orchestrator.plan.launch_plan import make_plan
from orchestrator.spec.load import load_job
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.spool import SpoolWriter, records_in
from tests import small_jobs
from tests.launch import records


class Ranks:
    """A launcher that writes what ranks would tell, and then ends as it is told."""

    def __init__(self, *told, unsent=(), end=None):
        self.told = told
        self.unsent = unsent
        self.end = end

    def run(self, launches):
        (launch,) = launches
        with SpoolWriter(launch.spool_path) as spool:
            for record in self.told:
                spool.append(record)
        launch.log_folder.mkdir()
        for rank in (0, 1):
            kept = UnsentRecords(launch.log_folder, rank=rank)
            for record in self.unsent:
                if record.rank == rank:
                    kept.append(record)
            kept.end_report()
        (launch.log_folder / "rank_01.log").write_text("last words")
        if self.end is not None:
            raise self.end


THREE_STEPS = [
    *(records.facts(rank) for rank in (0, 1)),
    *(records.sample(rank, step=step, loss=4.0 / step) for step in (1, 2, 3) for rank in (0, 1)),
    records.evaluation(3),
]


@pytest.fixture
def tracker():
    return InMemoryTracker()


@pytest.fixture
def run(tmp_path, tracker):
    path = small_jobs.write_job(tmp_path).path
    default = tracker

    def start(launcher, *, on_record=lambda _: None, overrides=(), tracker=None, **how):
        job = load_job(path, overrides=overrides)
        setting = Setting(
            home=open_home(tmp_path / "home"),
            open_tracker=lambda: tracker or default,
            started_unix_s=time.time(),
            user="me",
            commit="0" * 40,
            extensions=tmp_path / "extensions",
        )
        plan = make_plan(job, machine=small_jobs.MACHINE)
        return run_plan(plan, job, launcher=launcher, setting=setting, on_record=on_record, **how)

    return start


def stored(tracker):
    (found,) = tracker.runs.values()
    return found


def test_a_run_that_goes_well_is_finished_with_its_documents_and_no_unsent_files(run, tracker):
    seen: list[Record] = []
    # What a rank kept of step 3 has been reported.
    ranks = Ranks(*THREE_STEPS, unsent=[records.sample(0, step=3)])
    finished = run(ranks, on_record=seen.append)
    assert seen == THREE_STEPS
    assert finished.failure is None
    assert finished.record.steps == 3
    assert finished.record.losses == (4.0, 2.0, pytest.approx(4 / 3))
    assert finished.record.run_id == "run-1"
    assert finished.n_unsent == 0
    assert stored(tracker).status == "FINISHED"
    documents = {"job.yaml", "plan.json", "deepspeed.json", "environment.json"}
    results = {"summary.json", "throughput.json", "ranks.csv", "ranks.txt", "ledgers.csv"}
    # Nothing was traced, so there is no ledger and no timeline to draw.
    plots = {
        f"plots/{name}.{kind}" for name in ("step_time", "heat_map") for kind in ("png", "svg")
    }
    assert set(stored(tracker).files) == documents | results | plots
    assert stored(tracker).files["plots/heat_map.png"].startswith(b"\x89PNG")
    per_rank = {point.key for point in stored(tracker).points if "/rank_" in point.key}
    assert {"memory_peak_mib/rank_00", "memory_peak_mib/rank_01"} <= per_rank
    assert [path.name for path in (finished.folder / "logs").iterdir()] == ["rank_01.log"]


def test_a_rank_that_fails_fails_the_run_and_leaves_its_log(run, tracker):
    errors = {1: RankError(rank=1, kind="ValueError", message="mine", traceback="line 3")}
    finished = run(Ranks(*THREE_STEPS, end=RunError(judge(errors, last_steps={1: 3}))))
    assert finished.record.outcome == "failed"
    assert (
        finished.record.message
        == "rank 1 failed after step 3: ValueError: mine; see logs/failure.txt"
    )
    assert finished.record.steps == 3
    assert stored(tracker).status == "FAILED"
    assert stored(tracker).files["logs/rank_01.log.txt"] == b"last words"
    assert b"line 3" in stored(tracker).files["logs/failure.txt"]


@pytest.mark.parametrize(
    "end",
    [
        RunError(judge({1: RankError(rank=1, kind="Mine", message="")}, last_steps={1: 5})),
        KeyboardInterrupt(),
        LookupError("Ray is gone"),
    ],
    ids=["a rank", "Ctrl-C", "Ray"],
)
def test_a_run_that_ends_early_has_what_its_ranks_had_not_reported(end, run, tracker):
    unsent = [records.sample(rank, step=step) for rank in (0, 1) for step in (3, 4, 5)]
    seen: list[Record] = []
    finished = run(Ranks(*THREE_STEPS, unsent=unsent, end=end), on_record=seen.append)
    steps = [(r.rank, r.step) for r in seen if isinstance(r, RankSample)]
    assert steps == [(rank, step) for step in (1, 2, 3, 4, 5) for rank in (0, 1)]
    assert finished.record.steps == 5
    assert list(records_in(finished.folder / "records.jsonl")) == seen
    losses = [point.step for point in stored(tracker).points if point.key == "train/loss"]
    assert sorted(losses) == [1, 2, 3, 4, 5]
    assert list((finished.folder / "logs").glob("*unsent*")) == []


def test_ctrl_c_keeps_what_there_is(run, tracker):
    finished = run(Ranks(*THREE_STEPS, end=KeyboardInterrupt()))
    assert finished.record.outcome == "interrupted"
    assert finished.failure.exit_code == 130
    assert [row.rank for row in finished.record.ranks] == [0, 1]
    assert stored(tracker).status == "KILLED"
    assert json.loads(stored(tracker).files["summary.json"])["outcome"] == "interrupted"


def test_a_cluster_that_is_busy_is_no_failure_of_the_job(run, tracker):
    finished = run(Ranks(end=InfeasibleError("the cluster is busy")))
    assert (finished.record.outcome, finished.failure.exit_code) == ("infeasible", 3)
    assert finished.failure.message == "the cluster is busy"
    assert stored(tracker).status == "FAILED"


def test_a_launcher_that_breaks_ends_the_run_in_one_line(run, tracker):
    finished = run(Ranks(end=LookupError("no such thing\nand more")))
    assert finished.failure.message == "the launcher failed: LookupError: no such thing"
    assert "Traceback" in finished.failure.details
    assert stored(tracker).status == "FAILED"


def test_ctrl_c_while_results_are_delivered_does_not_tear_them_apart(run):
    class Pressed(InMemoryTracker):
        """The run ends in it after all else was written."""

        def finish(self, run, *, status, end_time_ms):
            os.kill(os.getpid(), signal.SIGINT)
            super().finish(run, status=status, end_time_ms=end_time_ms)

    tracker = Pressed()
    finished = run(Ranks(), tracker=tracker)
    assert finished.record.outcome == "ok"
    assert stored(tracker).status == "FINISHED"


def test_a_store_that_is_away_costs_the_run_nothing(run, tracker):
    tracker.available = False
    finished = run(Ranks(*THREE_STEPS), delivery_timeout_s=0.2)
    assert finished.record.outcome == "ok"
    assert finished.tracked is None
    assert finished.n_unsent > 0
    assert finished.record.run_id is None
    assert finished.record.steps == 3
    assert (finished.folder / "artifacts" / "summary.json").exists()


def test_a_run_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "runs").write_text("a file")
    with pytest.raises(
        UsageError, match=r"^run folder .* cannot be made: (Not a directory|File exists)$"
    ):
        run(Ranks())


def test_overrides_are_kept_beside_the_job_as_written(run, tracker, tmp_path):
    run(Ranks(), overrides=["zero.stage=1"])
    assert stored(tracker).files["overrides.txt"] == b"zero.stage=1\n"
    assert stored(tracker).files["job.yaml"] == (tmp_path / "job.yaml").read_bytes()
    assert stored(tracker).start.params["zero.stage"] == "1"


def test_a_run_says_whose_it_is(run, tracker):
    run(Ranks())
    tags = stored(tracker).start.tags
    assert tags["mlflow.user"] == "me"
    assert tags["mlflow.source.git.commit"] == "0" * 40
