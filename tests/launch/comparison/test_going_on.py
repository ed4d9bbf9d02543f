"""A comparison that was interrupted or killed, taken up again by the same command."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.launch.comparison.folder import unfinished
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.comparison.stint import Stint
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import records_in
from tests.launch import records
from tests.launch.comparison.scripted import Ranks, Seen, Workshop, failing, outcomes

pytestmark = pytest.mark.ray

CONTROLS = ["control fp32-0", "control fp32-1", "control fp32-2"]


@pytest.fixture
def shop(tmp_path):
    return Workshop(tmp_path, {"axes": {"zero.stage": [0, 1, 2]}})


def comparison_of(shop: Workshop) -> Path:
    (folder,) = shop.home.comparisons.iterdir()
    return folder


def killed(shop: Workshop, *, at: str) -> None:
    """Leave the state folder as a command does that is killed in the middle of a turn."""
    heard = threading.Event()
    shop.watcher = Seen()
    shop.watcher.on_record = lambda stint, _record: heard.set() if _turn(stint) == at else None

    def kill(_launch):
        assert heard.wait(10)
        # Whatever comes after it is written nowhere.
        shutil.copytree(shop.home.path, shop.folder / "left")
        raise KeyboardInterrupt

    shop.compare(Ranks({at: kill}))
    shutil.rmtree(shop.home.path)
    (shop.folder / "left").rename(shop.home.path)


def _turn(stint: Stint) -> str:
    name = stint.contestant.path.name[3:]
    return name if stint.round == 1 else f"{name}/{stint.round}"


def test_ctrl_c_keeps_what_there_is_and_the_same_command_runs_what_is_missing(shop):
    ranks = Ranks({"zero1": KeyboardInterrupt()})
    stopped = shop.compare(ranks)
    assert stopped.interrupted
    assert outcomes(stopped) == {"zero0": "ok", "zero1": "interrupted"}
    assert [one.is_complete for one in stopped.contestants] == [False, False, False]
    assert not shop.watcher.has_ended
    statuses = {run.start.name: run.status for run in shop.tracker.runs.values()}
    assert statuses == {"small comparison": "KILLED", "zero0": "FINISHED", "zero1": "KILLED"}
    assert (stopped.folder / "artifacts/report/comparison.md").is_file()

    ranks = Ranks()
    compared = shop.compare(ranks, draws=True)
    turns = ["zero1.2", "zero2", "zero0/2", "zero1.2/2", "zero2/2", *CONTROLS]
    assert ranks.groups == [turns]
    assert compared.folder == stopped.folder
    assert set(outcomes(compared).values()) == {"ok"}
    # What was cut off stays in the store, as a run that was killed.
    names = [run.start.name for run in shop.tracker.runs.values()]
    assert sorted(names) == ["small comparison", "zero0", "zero1", "zero1", "zero2"]
    assert shop.tracker.runs["run-1"].status == "FINISHED"
    assert (compared.folder / "strategies" / "01-zero1.2").is_dir()
    assert compared.seconds > stopped.seconds


def test_ctrl_c_in_a_later_round_keeps_the_first_as_the_outcome(shop):
    stopped = shop.compare(Ranks({"zero1/2": KeyboardInterrupt()}))
    assert set(outcomes(stopped).values()) == {"ok"}
    assert [one.is_complete for one in stopped.contestants] == [True, False, False]

    ranks = Ranks()
    compared = shop.compare(ranks, draws=True)
    assert ranks.turns == ["zero1/2", "zero2/2", *CONTROLS]
    rows = compared.reported.ranking.to_json()["rows"]
    assert [row["n_rounds"] for row in rows] == [2, 2, 2]
    names = [run.start.name for run in shop.tracker.runs.values()]
    assert sorted(names) == ["small comparison", "zero0", "zero1", "zero2"]
    assert {run.status for run in shop.tracker.runs.values()} == {"FINISHED"}


def test_half_of_a_later_round_is_begun_anew(shop):
    shop.compare(Ranks({"zero0/2": KeyboardInterrupt()}))
    half = comparison_of(shop) / "strategies/00-zero0/rounds/2"
    assert len(list(records_in(half / "records.jsonl"))) == 6, "two facts and two steps of two"
    shop.compare(Ranks())
    steps = [getattr(one, "step", None) for one in records_in(half / "records.jsonl")]
    assert steps.count(1) == 2, "once a rank"


def test_ctrl_c_between_two_groups_keeps_what_there_is(shop):
    class Pressed(Ranks):
        """Stopping what failed takes seconds, in which one presses Ctrl-C."""

        def renew(self):
            raise KeyboardInterrupt

    stopped = shop.compare(Pressed({"zero1": failing()}))
    assert stopped.interrupted
    assert outcomes(stopped) == {"zero0": "ok", "zero1": "failed"}
    ranks = Ranks()
    assert set(outcomes(shop.compare(ranks)).values()) == {"ok", "failed"}
    assert ranks.turns == ["zero2", "zero0/2", "zero2/2", *CONTROLS]


def test_ctrl_c_while_results_are_drawn_is_heard(shop):
    def press():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    shop.watcher.ends = press
    stopped = shop.compare(Ranks())
    assert stopped.interrupted
    assert set(outcomes(stopped).values()) == {"ok"}
    ranks = Ranks()
    assert not shop.compare(ranks, draws=True).interrupted
    assert ranks.turns == []


def test_failures_are_not_tried_again(shop):
    shop.compare(Ranks({"zero0": failing(), "zero2": KeyboardInterrupt()}))
    ranks = Ranks()
    compared = shop.compare(ranks)
    # The baseline failed, so that there is nothing to hold its controls against.
    assert ranks.turns == ["zero2.2", "zero1/2", "zero2.2/2"]
    assert outcomes(compared) == {"zero0": "failed", "zero1": "ok", "zero2": "ok"}
    assert shop.n_taken_up == 1


def test_a_driver_that_was_killed_in_a_first_round_leaves_what_is_whole(shop):
    killed(shop, at="zero1")
    folder = comparison_of(shop)
    assert Outbox(folder / "strategies/01-zero1").finished() is None
    ranks = Ranks()
    compared = shop.compare(ranks)
    assert ranks.turns == ["zero1.2", "zero2", "zero0/2", "zero1.2/2", "zero2/2", *CONTROLS]
    assert set(outcomes(compared).values()) == {"ok"}
    given_up = Outbox(folder / "strategies/01-zero1").finished()
    assert given_up is not None
    assert given_up.status == "KILLED"
    assert {run.status for run in shop.tracker.runs.values()} == {"FINISHED", "KILLED"}


def test_a_driver_that_was_killed_in_a_later_round_leaves_the_rounds_that_are_whole(shop):
    killed(shop, at="zero1/2")
    folder = comparison_of(shop) / "strategies/01-zero1/rounds/2"
    # What its ranks had not told yet.
    kept = UnsentRecords(folder / "logs", rank=0)
    kept.append(records.sample(0, step=77))
    kept.end_report()
    ranks = Ranks()
    shop.compare(ranks)
    assert ranks.turns == ["zero1/2", "zero2/2", *CONTROLS]
    steps = {getattr(record, "step", None) for record in records_in(folder / "records.jsonl")}
    assert 77 not in steps


def test_rounds_told_after_an_interruption_count_even_if_the_next_command_is_killed(shop):
    shop.compare(Ranks({"zero1/2": KeyboardInterrupt()}))
    killed(shop, at="zero2/2")
    ranks = Ranks()
    compared = shop.compare(ranks)
    assert ranks.turns == ["zero2/2", *CONTROLS]
    rows = compared.reported.ranking.to_json()["rows"]
    assert [row["n_rounds"] for row in rows] == [2, 2, 2]


def test_a_comparison_that_is_complete_is_not_gone_on_with(shop):
    first = shop.compare(Ranks(), draws=True)
    ranks = Ranks()
    second = shop.compare(ranks)
    assert second.folder != first.folder
    assert len(ranks.turns) == 9


@pytest.mark.parametrize("change", ["training.steps=5", "compare.rounds=3"])
def test_what_another_job_measured_is_not_taken_over(shop, change):
    stopped = shop.compare(Ranks({"zero1": KeyboardInterrupt()}))
    ranks = Ranks({"zero0": KeyboardInterrupt()})
    other = shop.compare(ranks, change)
    assert other.folder != stopped.folder
    assert ranks.turns == ["zero0"]


def test_what_did_not_fit_is_run_once_it_may(shop):
    _, planned = shop.plan()
    too_big = [planned[0], *(_infeasible(one) for one in planned[1:])]
    stopped = shop.compare(Ranks({"zero0/2": KeyboardInterrupt()}), planned=too_big)
    assert list(outcomes(stopped).values()) == ["ok", "infeasible", "infeasible"]
    ranks = Ranks({"zero2.2": KeyboardInterrupt()})
    shop.compare(ranks, planned=planned)
    assert ranks.turns == ["zero1.2", "zero2.2"]


def test_two_commands_at_once_take_folders_of_their_own(shop):
    job, planned = shop.plan()
    shop.compare(Ranks({"zero1": KeyboardInterrupt()}))
    held = shop.open(job, planned)
    assert held.path == comparison_of(shop)
    assert unfinished(shop.home, fingerprint=held.fingerprint) is None
    ranks = Ranks({"zero0": KeyboardInterrupt()})
    other = shop.compare(ranks)
    assert other.folder != held.path
    assert ranks.turns == ["zero0"], "nothing of the other is taken over"
    held.release()
    (newest, found) = (other.folder, unfinished(shop.home, fingerprint=held.fingerprint))
    assert found is not None
    assert found.path == newest
    found.release()


def _infeasible(one: PlannedStrategy) -> PlannedStrategy:
    return replace(one, infeasible="it does not fit; run it all the same with --force")
