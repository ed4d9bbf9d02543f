"""Comparisons around ranks of the test's own: whose turn it is, and what becomes of what fails."""

import logging
import re
import time
from collections import Counter

import pytest

from orchestrator.errors import InfeasibleError
from orchestrator.launch.comparison.planned import plan_strategies
from orchestrator.plan.resources import Machine
from tests.launch.comparison.scripted import Ranks, Workshop, failing, messages, outcomes

pytestmark = pytest.mark.ray

CONTROLS = ["control fp32-0", "control fp32-1", "control fp32-2"]
THREE = {"axes": {"zero.stage": [0, 1, 2]}}
TWO = {"axes": {"zero.stage": [0, 1]}}


@pytest.fixture
def three(tmp_path):
    return Workshop(tmp_path, THREE)


@pytest.fixture
def two(tmp_path):
    return Workshop(tmp_path, TWO)


def test_strategies_take_turns_in_one_group_and_the_controls_come_last(three):
    ranks = Ranks()
    compared = three.compare(ranks)
    turns = ["zero0", "zero1", "zero2", "zero0/2", "zero1/2", "zero2/2", *CONTROLS]
    assert ranks.groups == [turns]
    assert outcomes(compared) == {"zero0": "ok", "zero1": "ok", "zero2": "ok"}
    assert three.watcher.first_rounds == ["zero0", "zero1", "zero2"]
    assert three.watcher.begun == [(9, [])]
    assert three.watcher.has_ended
    rows = compared.reported.ranking.to_json()["rows"]
    assert [row["n_rounds"] for row in rows] == [2, 2, 2]
    # 4 steps of the first round and 3 of the second, less those that are not measured.
    assert all(row["samples_per_s"] == pytest.approx(32.0) for row in rows)


def test_a_strategy_that_fails_is_a_row_and_the_others_go_on_in_a_new_group(three):
    ranks = Ranks({"zero1": failing()})
    compared = three.compare(ranks)
    assert ranks.groups == [
        ["zero0", "zero1"],
        ["zero2", "zero0/2", "zero2/2", *CONTROLS],
    ]
    # Between the two, and at the end.
    assert ranks.n_renewed == 2
    assert outcomes(compared) == {"zero0": "ok", "zero1": "failed", "zero2": "ok"}
    message = "rank 1 failed after step 2: ValueError: mine; see logs/failure.txt"
    assert messages(compared)["zero1"] == message
    assert three.watcher.failures == [("zero1", message)]


def test_memory_that_runs_out_is_an_outcome_of_its_own(two):
    compared = two.compare(Ranks({"zero1": failing("MemoryError", "no room")}))
    assert outcomes(compared) == {"zero0": "ok", "zero1": "oom"}
    assert messages(compared)["zero1"] == (
        "rank 1 ran out of memory after step 2: no room; "
        "raise zero.stage, offload, or lower micro_batch_size"
    )
    assert not any(one.has_failed for one in compared.contestants)


def test_a_failure_of_a_later_round_says_so_and_keeps_what_the_first_told(two):
    ranks = Ranks({"zero0/2": failing()})
    compared = two.compare(ranks)
    # Without a baseline there is nothing that its controls would tell of.
    assert ranks.groups == [["zero0", "zero1", "zero0/2"], ["zero1/2"]]
    assert outcomes(compared) == {"zero0": "failed", "zero1": "ok"}
    assert messages(compared)["zero0"] == (
        "in round 2: rank 1 failed after step 2: ValueError: mine; see logs/failure.txt"
    )
    ranking = compared.reported.ranking
    assert ranking.baseline == "zero1", "the first that ran to its end"
    assert ranking.row("zero0").entry.record.steps == 4


def test_controls_that_fail_cost_no_strategy_its_outcome(two, caplog):
    ranks = Ranks({"control fp32-1": failing()})
    with caplog.at_level(logging.WARNING):
        compared = two.compare(ranks)
    assert ranks.turns[-2:] == CONTROLS[:2]
    assert outcomes(compared) == {"zero0": "ok", "zero1": "ok"}
    assert [record.getMessage() for record in caplog.records] == [
        "how far rounding alone takes the losses stays unknown: "
        "rank 1 failed after step 2: ValueError: mine; see logs/failure.txt"
    ]


def test_when_all_fail_every_strategy_has_its_row_and_none_wins(two):
    compared = two.compare(Ranks({"zero0": failing(), "zero1": failing("MemoryError")}))
    assert outcomes(compared) == {"zero0": "failed", "zero1": "oom"}
    assert set(compared.reported.ranking.winners.values()) == {None}
    assert compared.reported.ranking.baseline is None
    assert compared.reported.path.is_file()


def test_a_launcher_that_breaks_down_fails_the_strategy_whose_turn_it_was(two):
    compared = two.compare(Ranks({"zero1": LookupError("Ray is gone\nand more")}))
    assert outcomes(compared) == {"zero0": "ok", "zero1": "failed"}
    assert messages(compared)["zero1"] == "the launcher failed: LookupError: Ray is gone"


def test_what_cannot_run_here_is_a_row_that_never_runs(tmp_path):
    variants = [{"name": "well"}, {"name": "wide", "resources.workers": 4}]
    workshop = Workshop(tmp_path, {"variants": variants})
    job, _ = workshop.plan()
    small = Machine(n_cpus=2, n_gpus=0, name="this machine")
    planned = plan_strategies(job, machine=small, environment={})
    ranks = Ranks()
    compared = workshop.compare(ranks, planned=planned)
    assert ranks.turns == ["well", "well/2", *CONTROLS]
    assert outcomes(compared) == {"well": "ok", "wide": "infeasible"}
    assert re.search(
        r"job.yaml:7:\d+: resources.workers: 4 workers x 1 CPUs need 4 CPUs and this machine has "
        r"2; lower resources.workers",
        messages(compared)["wide"] or "",
    )
    assert workshop.watcher.failures[0][0] == "wide"
    assert not any(one.has_failed for one in compared.contestants)


def test_where_nothing_fits_no_rank_is_started(two):
    job, _ = two.plan()
    planned = plan_strategies(
        job, machine=Machine(n_cpus=1, n_gpus=0, name="this machine"), environment={}
    )
    ranks = Ranks()
    compared = two.compare(ranks, planned=planned)
    assert ranks.groups == []
    assert outcomes(compared) == {"zero0": "infeasible", "zero1": "infeasible"}
    assert not any(one.has_ended_well for one in compared.contestants)


def test_other_numbers_of_workers_are_groups_of_their_own(tmp_path):
    variants = [
        {"name": "pair"},
        {"name": "alone", "resources.workers": 1},
        {"name": "pair1", "zero.stage": 1},
    ]
    workshop = Workshop(tmp_path, {"variants": variants, "baseline": "pair"})
    ranks = Ranks()
    compared = workshop.compare(ranks)
    assert ranks.groups == [
        ["pair", "pair1", "pair/2", "pair1/2", *CONTROLS],
        ["alone", "alone/2"],
    ]
    assert ranks.n_renewed == 2
    assert workshop.watcher.begun == [(7, [2]), (2, [])]
    assert set(outcomes(compared).values()) == {"ok"}


def test_one_strategy_alone_is_compared_with_nothing(tmp_path):
    workshop = Workshop(tmp_path, {"axes": {"zero.stage": [1]}})
    ranks = Ranks()
    compared = workshop.compare(ranks)
    assert ranks.turns == ["zero1", "zero1/2"]
    assert compared.reported.ranking.baseline == "zero1"


def test_isolated_every_turn_is_a_group_of_its_own_and_controls_are_one(two):
    ranks = Ranks()
    compared = two.compare(ranks, isolated=True)
    turns = ["zero0", "zero1", "zero0/2", "zero1/2"]
    # Of controls nothing is measured but losses.
    assert ranks.groups == [*([turn] for turn in turns), [*CONTROLS]]
    assert two.watcher.begun[0] == (1, [1, 1, 1, 3])
    assert set(outcomes(compared).values()) == {"ok"}


def test_isolated_ranks_that_fail_once_all_is_told_fail_no_other_strategy(two):
    class BadEnd(Ranks):
        """Its first group fails after everything was told."""

        def run(self, launches):
            super().run(launches)
            if len(self.groups) == 1:
                raise failing()

    ranks = BadEnd()
    compared = two.compare(ranks, isolated=True)
    assert set(outcomes(compared).values()) == {"ok"}
    assert Counter(ranks.turns)["zero1"] == 1
    assert two.watcher.failures == []


def test_a_cluster_that_ranks_before_still_hold_is_asked_again(two):
    class Slow(Ranks):
        """Of a cluster that takes a while to free what a group has held."""

        n_asked = 0

        def run(self, launches):
            if len(self.groups) == 1:
                self.n_asked += 1
                if self.n_asked < 3:
                    raise InfeasibleError("the cluster is busy")
            super().run(launches)

    ranks = Slow({"zero0": failing()})
    assert outcomes(two.compare(ranks)) == {"zero0": "failed", "zero1": "ok"}
    assert ranks.n_asked == 3


def test_a_cluster_that_others_hold_from_the_start_is_not_waited_for(two):
    compared = two.compare(Ranks({"zero0": InfeasibleError("the cluster is busy")}))
    assert outcomes(compared) == {"zero0": "infeasible", "zero1": "ok"}
    assert messages(compared)["zero0"] == "the cluster is busy"


def test_ranks_that_hang_are_ended_and_the_others_go_on(tmp_path):
    workshop = Workshop(tmp_path, {**TWO, "hang_timeout_s": 0.5})
    ranks = Ranks()
    ranks.ends["zero1"] = ranks.hang
    compared = workshop.compare(ranks)
    assert outcomes(compared) == {"zero0": "ok", "zero1": "failed"}
    assert messages(compared)["zero1"] == (
        "it hangs: no rank goes on after step 2, and nothing was heard for 500 ms; look at what "
        "the model or the data wait for there, or raise compare.hang_timeout_s"
    )
    assert ranks.turns[2:4] == ["zero0/2", *CONTROLS[:1]]


def test_a_folder_that_cannot_be_written_ends_the_comparison_in_an_error(two):
    def full(stint, _record):
        if stint.contestant.name == "zero1":
            raise OSError(28, "No space left on device")

    two.watcher.on_record = full
    ranks = Ranks()
    ranks.ends["zero0/2"] = ranks.hang
    with pytest.raises(OSError, match="No space left on device"):
        two.compare(ranks)
    assert ranks.is_aborted, "ranks that nobody listens to are ended"


def test_a_report_that_cannot_be_written_loses_nothing(two):
    def in_the_way(_stint, _record):
        (folder,) = two.home.comparisons.iterdir()
        (folder / "artifacts" / "report").write_text("a file, and no folder")

    two.watcher.on_record = in_the_way
    with pytest.raises(OSError, match="report"):
        two.compare(Ranks())
    (folder,) = two.home.comparisons.iterdir()
    (folder / "artifacts" / "report").unlink()
    ranks = Ranks()
    compared = two.compare(ranks)
    assert ranks.turns == []
    assert outcomes(compared) == {"zero0": "ok", "zero1": "ok"}
    assert compared.reported.path.is_file()


def test_ranks_whose_records_got_lost_fail_and_are_not_run_for_ever(two):
    ranks = Ranks({"zero0": lambda _launch: None})
    compared = two.compare(ranks)
    assert outcomes(compared) == {"zero0": "failed", "zero1": "ok"}
    assert Counter(ranks.turns)["zero0"] == 1
    assert re.fullmatch(
        r"its ranks ended well, but not all that they told came into .*00-zero0/records.jsonl; "
        r"see that the disk has room, and run it again",
        messages(compared)["zero0"] or "",
    )


def test_strategies_are_drawn_while_controls_run(two):
    class Patient(Ranks):
        """Its controls take until every strategy is drawn."""

        n_drawn = 0

        def run(self, launches):
            super().run(launches)
            deadline_s = time.monotonic() + 60
            while self.n_drawn < 2 and time.monotonic() < deadline_s:
                time.sleep(0.05)
                drawn = two.home.comparisons.glob("*/strategies/*/artifacts/plots/step_time.svg")
                self.n_drawn = len(list(drawn))

    ranks = Patient()
    two.compare(ranks)
    assert ranks.groups[-1][-3:] == CONTROLS
    assert ranks.n_drawn == 2
