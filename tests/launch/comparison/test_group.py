"""A group of ranks that runs launch after launch: what is heard of it, and when it hangs."""

import logging
import time
from dataclasses import replace

import pytest

from orchestrator.launch.base import Launch
from orchestrator.launch.comparison import group
from orchestrator.launch.comparison.group import GroupEnd, run_group
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.measure.sample import RankSample, Record
from orchestrator.track.spool import SpoolWriter
from tests import small_jobs
from tests.launch import records
from tests.launch.comparison.scripted import Ranks, failing, tell

pytestmark = pytest.mark.ray


class Workers(Ranks):
    """Does with every launch what it is told to; unless that ends otherwise, it ends well."""

    def __init__(self, *does):
        super().__init__()
        self.does = does

    def run(self, launches):
        self.is_aborted = False
        for launch, do in zip(launches, self.does, strict=True):
            do(launch)


@pytest.fixture
def launches(tmp_path):
    plan = small_jobs.plan_job(tmp_path)
    return [
        Launch(
            plan=plan,
            spool_path=tmp_path / name / "records.jsonl",
            log_folder=tmp_path / name / "logs",
            rank_environment={},
        )
        for name in ("first", "second")
    ]


@pytest.fixture
def heard():
    return []


@pytest.fixture
def run(launches, heard):
    def start(launcher: Workers, *, hang_timeout_s: float = 60.0) -> GroupEnd:
        def hear(number: int, record: Record) -> None:
            heard.append((number, record))

        return run_group(
            launches[: len(launcher.does)],
            launcher=launcher,
            on_record=hear,
            on_done=lambda number: heard.append((number, None)),
            hang_timeout_s=hang_timeout_s,
        )

    return start


def put(launch: Launch, *told: Record) -> None:
    launch.log_folder.mkdir(parents=True, exist_ok=True)
    with SpoolWriter(launch.spool_path) as spool:
        for record in told:
            spool.append(record)


def facts_of_two() -> list[Record]:
    return [records.facts(rank) for rank in (0, 1)]


def test_launches_are_heard_one_after_another(run, heard):
    end = run(Workers(tell, tell))
    assert end == GroupEnd(n_done=2, outcome="ok", failure=None)
    assert [number for number, record in heard if record is None] == [0, 1]
    numbers = [number for number, _ in heard]
    assert numbers == sorted(numbers)


def test_what_ranks_had_not_told_when_one_failed_is_heard(run, heard, launches):
    def fail(launch):
        put(launch, *facts_of_two(), records.sample(0), records.sample(1))
        kept = UnsentRecords(launch.log_folder, rank=1)
        kept.append(records.sample(1, step=2))
        kept.end_report()
        raise failing()

    end = run(Workers(tell, fail))
    assert (end.n_done, end.outcome) == (1, "failed")
    steps = [(r.rank, r.step) for n, r in heard if n == 1 and isinstance(r, RankSample)]
    assert steps == [(0, 1), (1, 1), (1, 2)]
    assert list(launches[1].log_folder.glob("*unsent*")) == []


def test_ranks_that_take_their_time_to_start_do_not_hang(run):
    def start_slowly(launch):
        time.sleep(1.5)
        tell(launch)

    assert run(Workers(start_slowly), hang_timeout_s=0.3).outcome == "ok"


def test_ranks_that_keep_records_to_tell_of_them_later_do_not_hang(run):
    def step_slowly(launch):
        put(launch, *facts_of_two())
        kept = UnsentRecords(launch.log_folder, rank=0)
        for step in range(1, 6):
            time.sleep(0.5)
            kept.append(records.sample(0, step=step))
        kept.end_report()
        put(launch, records.done(0), records.done(1))

    launcher = Workers(step_slowly)
    assert run(launcher, hang_timeout_s=0.8).outcome == "ok"
    assert not launcher.is_aborted


def test_the_rank_that_is_behind_is_the_one_that_hangs(run):
    launcher = Workers()

    def stand_still(launch):
        put(launch, *facts_of_two(), records.sample(0), records.sample(1))
        put(launch, records.sample(0, step=2))
        launcher.hang(launch)

    launcher.does = (stand_still,)
    failure = run(launcher, hang_timeout_s=0.3).failure
    assert failure is not None
    assert (failure.rank, failure.step) == (1, 1)
    assert failure.message.startswith("it hangs: rank 1 does not go on after step 1, and nothing ")
    assert failure.details == "last step of each rank: {0: 2, 1: 1}"


def test_ranks_that_hang_before_their_first_step_say_so(run):
    launcher = Workers()

    def stand_still(launch):
        put(launch, *facts_of_two())
        launcher.hang(launch)

    launcher.does = (stand_still,)
    failure = run(launcher, hang_timeout_s=0.3).failure
    assert failure is not None
    assert failure.message.startswith("it hangs: no rank goes on before its first step, and ")


def test_ranks_that_compile_on_their_nodes_do_not_hang_meanwhile(run, launches, monkeypatch):
    """Until their first step, where the launch needs ops; the driver hears nothing of it."""
    monkeypatch.setattr(group, "BUILD_TIMEOUT_S", 2.0)
    launches[0] = replace(launches[0], plan=replace(launches[0].plan, compiled_ops=("cpu_adam",)))

    def compile_first(launch):
        put(launch, *facts_of_two())
        time.sleep(1.5)
        tell(launch)

    workers = Workers(compile_first)
    workers.compiles = True
    assert run(workers, hang_timeout_s=0.3).outcome == "ok"
    launcher = Workers()
    launcher.compiles = True

    def stand_still(launch):
        put(launch, records.sample(0), records.sample(1))
        launcher.hang(launch)

    launcher.does = (stand_still,)
    began_s = time.monotonic()
    assert run(launcher, hang_timeout_s=0.3).outcome == "failed"
    assert time.monotonic() - began_s < 2


def test_ending_ranks_that_hang_is_tried_until_it_works(run, caplog):
    class Stubborn(Workers):
        """It cannot be ended the first time."""

        n_tries = 0

        def abort(self):
            self.n_tries += 1
            if self.n_tries == 1:
                raise ConnectionError("Ray does not answer")
            super().abort()

    launcher = Stubborn()
    launcher.does = (tell, launcher.hang)
    with caplog.at_level(logging.WARNING):
        end = run(launcher, hang_timeout_s=0.3)
    assert end.outcome == "failed"
    assert [record.getMessage() for record in caplog.records] == [
        "the ranks cannot be ended: ConnectionError: Ray does not answer"
    ]


def test_ranks_that_hang_once_all_is_told_lose_nothing(run):
    launcher = Workers()

    def stand_still_at_the_end(launch):
        tell(launch)
        launcher.hang(launch)

    launcher.does = (stand_still_at_the_end,)
    end = run(launcher, hang_timeout_s=0.3)
    assert end.n_done == 1, "and so none of them is the one that failed"
    assert end.failure is not None, "so that nothing of the group is used again"
