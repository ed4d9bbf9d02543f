import pickle

import pytest

from orchestrator.launch.base import Launch
from orchestrator.launch.failure import RankError, RankRaisedError
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.launch.verdict import rank_error, signal_of, verdict
from orchestrator.track.spool import SpoolWriter
from tests import small_jobs
from tests.launch import records

ABSL = "*** SIGSEGV received at time=1795302740 on cpu 0 ***\nPC: @ 0x7fa6 (unknown)\n"


class ActorDiedError(Exception):
    pass


class OutOfMemoryError(Exception):
    pass


class DeadError(Exception):
    """As Ray Train says that a rank does not answer."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.health_check_failure = cause


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("", "SIGKILL"),
        ("step 1\nstep 2\n", "SIGKILL"),
        (ABSL, "SIGSEGV"),
        (ABSL + "Fatal Python error: Segmentation fault\n\nStack (most recent", "SIGSEGV"),
        ("*** SIGABRT received at time=1 on cpu 0 ***\n", "SIGABRT"),
        ("Fatal Python error: Aborted\n", "SIGABRT"),
        ("Fatal Python error: Bus error\n", "SIGBUS"),
        ("Fatal Python error: init_import_site: Failed\n", "SIGKILL"),
    ],
)
def test_a_log_names_the_signal_and_silence_means_kill(log, name, tmp_path):
    path = tmp_path / "rank_00.log"
    path.write_text(log)
    assert signal_of(path) == name


def test_without_a_log_the_signal_is_unknown(tmp_path):
    assert signal_of(tmp_path / "rank_00.log") is None


def test_what_a_rank_raised_survives_its_way_to_the_driver():
    raised = RankError(rank=1, kind="UsersError", message="mine", traceback="line 3")
    assert rank_error(1, pickle.loads(pickle.dumps(RankRaisedError(raised)))) == raised


def test_what_ray_raised_in_a_rank_is_told_as_it_is():
    error = rank_error(1, ValueError("no such worker"))
    assert (error.rank, error.kind, error.message) == (1, "ValueError", "no such worker")


def test_a_rank_that_does_not_answer_has_died():
    assert rank_error(0, DeadError(ActorDiedError("gone"))).kind == "WorkerDiedError"


def test_a_rank_that_ray_killed_for_its_memory_ran_out_of_it():
    assert rank_error(0, DeadError(OutOfMemoryError("full"))).kind == "OutOfMemoryError"


def test_a_rank_that_died_is_told_with_the_last_step_that_it_reported_or_not(tmp_path):
    launch = Launch(
        plan=small_jobs.plan_job(tmp_path),
        spool_path=tmp_path / "records.jsonl",
        log_folder=tmp_path / "logs",
        rank_environment={},
    )
    with SpoolWriter(launch.spool_path) as spool:
        for record in (records.facts(1, pid=77), records.sample(1, step=1)):
            spool.append(record)
    died = {1: RankError(rank=1, kind="WorkerDiedError", message="gone")}
    assert "(pid 77) after step 1; " in str(verdict(died, launch))
    unsent = UnsentRecords(launch.log_folder, rank=1)
    # A report that the controller has may lie there still.
    for step in (1, 2, 3):
        unsent.append(records.sample(1, step=step))
    unsent.end_report()
    assert "(pid 77) after step 3; " in str(verdict(died, launch))
