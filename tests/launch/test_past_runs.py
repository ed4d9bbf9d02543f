"""Runs that are already in a store: which are taken, what is said of the others, how they rank."""

import json
from dataclasses import replace

import pytest

from orchestrator.compare.ranking import Sameness
from orchestrator.errors import UsageError
from orchestrator.launch.comparison.report import COMPARISON_DOCUMENT, CONTROLS_DOCUMENT
from orchestrator.launch.past_runs import past_runs, ranked
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.read import ArtifactsUnreadableError, InMemoryRunReader
from tests.compare.made_up import entry
from tests.launch.stored_runs import Shelf

TEXT = {"data": {"source": "text"}}


class Elsewhere(InMemoryRunReader):
    """A store whose artifacts lie where one cannot reach."""

    def documents(self, run, names):
        raise ArtifactsUnreadableError(f"{run.run_id}, {names[0]}: Permission denied")


@pytest.fixture
def tracker():
    return InMemoryTracker()


@pytest.fixture
def shelf(tracker, tmp_path):
    return Shelf(tracker, tmp_path / "outboxes")


@pytest.fixture
def found(tracker):
    def find(experiment="question", *run_ids):
        return past_runs(InMemoryRunReader(tracker), experiment=experiment, run_ids=run_ids)

    return find


def names(past):
    return [entry.name for entry in past.entries]


def reasons(past):
    return {one.name: one.reason for one in past.left_out}


def test_an_entry_is_what_the_run_came_to(shelf, found):
    made = entry("zero1", commit="abc", rounds=((10.0, 11.0), (12.0,)))
    run_id = shelf.put(made, user="ann")
    (read,) = found().entries
    assert read == replace(made, user="ann", record=replace(made.record, run_id=run_id))


def test_an_experiments_runs_are_in_the_order_in_which_they_began(shelf, found):
    shelf.put(entry("zero3"), minutes=5)
    shelf.put(entry("zero1"), minutes=2)
    assert names(found()) == ["zero1", "zero3"]


def test_runs_that_are_named_are_in_the_order_in_which_they_are_named(shelf, found):
    first, _, last = [shelf.put(entry(name)) for name in ("zero1", "zero2", "zero3")]
    past = found(None, last, first, last)
    assert names(past) == ["zero3", "zero1"]
    assert ranked(past, baseline=None).baseline == "zero3"


def test_a_run_of_another_experiment_can_stand_beside_an_experiment(
    shelf, found, tracker, tmp_path
):
    shelf.put(entry("zero1"))
    other = Shelf(tracker, tmp_path / "other", experiment="other").put(entry("zero3"))
    past = found("question", other)
    assert names(past) == ["zero1", "zero3"]
    assert past.name == "question, other"


def test_failed_and_killed_runs_are_taken_and_what_runs_is_left_out(shelf, found):
    shelf.put(entry("zero0", outcome="failed", message="no"), status="FAILED")
    shelf.put(entry("zero1", outcome="interrupted"), status="KILLED")
    shelf.put(entry("zero2"), name="still", status=None)
    past = found()
    assert names(past) == ["zero0", "zero1"]
    assert reasons(past) == {"still": "has not ended, by what MLflow knows"}


def test_of_runs_that_lack_documents_it_is_said_why(shelf, found):
    shelf.put(entry())
    bobs = shelf.put(None, name="bob's", status="FINISHED")
    shelf.put(None, name="killed", files={"plan.json": {}}, status="KILLED")
    shelf.put(entry(), name="torn", files={"summary.json": '{"run_id": nu'})
    shelf.put(entry(), name="old", files={"summary.json": {"name": "old"}})
    shelf.put(entry(), name="list", files={"plan.json": [1, 2]})
    assert names(found()) == ["zero0"]
    damaged = "its documents are damaged, or of another version of this program"
    assert reasons(found()) == {
        "bob's": "its artifacts are not there",
        "killed": "ended before it was summed up",
        "torn": damaged,
        "old": damaged,
        "list": damaged,
    }
    assert found().left_out[0].to_json()["run_id"] == bobs


def test_what_another_program_made_is_told_from_what_is_lost():
    class Others(InMemoryRunReader):
        def run(self, run_id):
            return replace(super().run(run_id), tags={})

    tracker = InMemoryTracker()
    with pytest.raises(UsageError, match=r"no run that can be reported: .* was not made by this"):
        _one_run_of(tracker, Others(tracker))


def test_artifacts_that_cannot_be_reached_are_told_with_the_cause(tracker):
    words = r"its artifacts cannot be read from here: run-1, plan.json: Permission denied"
    with pytest.raises(UsageError, match=words):
        _one_run_of(tracker, Elsewhere(tracker))


def _one_run_of(tracker, reader):
    from orchestrator.track.base import RunStart

    run = tracker.start(RunStart(key="one", experiment="x", name="one", start_time_ms=1))
    tracker.finish(run, status="FINISHED", end_time_ms=2)
    past_runs(reader, experiment="x", run_ids=[])


def test_an_experiment_without_a_single_run_to_report_is_told_in_one_line(shelf, found):
    for n in range(5):
        shelf.put(None, name=f"run{n}")
    with pytest.raises(UsageError) as caught:
        found()
    assert str(caught.value).startswith("no run that can be reported: run0 run-1 its artifacts")
    assert str(caught.value).endswith(" and 2 more")
    assert len(str(caught.value).splitlines()) == 1


def test_an_experiment_with_comparisons_alone_that_ran_nothing_is_told(shelf, found):
    parent, _ = shelf.put_comparison()
    for asked in (("question",), (None, parent)):
        with pytest.raises(UsageError, match="no strategy of made-up comparison has begun"):
            found(*asked)


def test_what_differs_between_people_is_said_and_they_are_ranked(shelf, found):
    shelf.put(entry("zero1", commit="a" * 40), user="alice")
    shelf.put(entry("zero1", circumstances={"versions": {"torch": "2.11.0"}}), user="bob")
    past = found()
    ranking = ranked(past, baseline=None)
    assert names(past) == ["zero1-alice", "zero1-bob"]
    assert past.users == ("alice", "bob")
    assert ranking.not_ranked == ()
    assert set(ranking.differences) == {
        "torch: 2.13.0 (zero1-alice), 2.11.0 (zero1-bob)",
        "user: alice (zero1-alice), bob (zero1-bob)",
    }


def test_runs_on_other_data_or_devices_are_not_ranked(shelf, found):
    shelf.put(entry("zero1"))
    shelf.put(entry("zero1", job=TEXT))
    shelf.put(entry("zero2", device="cuda", circumstances={"devices": ("H100",)}))
    ranking = ranked(found(), baseline=None)
    assert ranking.not_ranked == (
        "another device: cpu (zero1, zero1-text), H100 (zero2)",
        "another data.source: digits (zero1, zero2), text (zero1-text)",
    )
    assert set(ranking.winners.values()) == {None}


LOSSES = (2.0, 1.5, 1.25, 1.125)
MOVED = (2.0, 1.5, 1.26, 1.15)
"""As far from those as a bit takes this training, by the control."""
FAR = (2.0, 1.5, 1.255, 1.13)
"""Less far, and further than is explained without the control."""


def compared(shelf, **files):
    told = {
        "name": "made-up",
        "baseline": "zero3",
        "varied": ["data.source"],
        "strategies": ["zero2", "zero3"],
    }
    controls = {"fp32": list(MOVED)}
    parent, key = shelf.put_comparison(
        files={COMPARISON_DOCUMENT: told, CONTROLS_DOCUMENT: controls, **files}
    )
    shelf.put(entry("zero3", losses=LOSSES), name="zero3", parent=key)
    shelf.put(entry("zero2", losses=FAR), name="zero2", parent=key)
    return parent, key


def loss_of(ranking, name):
    return ranking.row(name).loss.sameness


def test_a_comparisons_runs_are_judged_as_it_judged_them(shelf, found):
    parent, _ = compared(shelf)
    past = found(None, parent)
    assert names(past) == ["zero2", "zero3"]
    assert past.name == "made-up"
    assert past.entry_name(None) == "zero3"
    ranking = ranked(past, baseline=past.entry_name(None))
    assert ranking.baseline == "zero3"
    assert loss_of(ranking, "zero2") is Sameness.ROUNDING
    assert names(found("question")) == ["zero2", "zero3"], "the experiment is that comparison"


def test_controls_are_those_of_their_baseline_alone(shelf, found):
    parent, _ = compared(shelf)
    past = found(None, parent)
    assert past.controls("zero3") == {"fp32": MOVED}
    assert past.controls("zero2") == {}
    assert past.controls(None) == {}, "the first that ran to its end is zero2"
    ranking = ranked(past, baseline="zero2")
    assert loss_of(ranking, "zero3") is Sameness.DIFFERENT


def test_what_a_comparison_varied_is_no_difference_in_it_and_is_one_beside_other_runs(shelf, found):
    parent, key = compared(shelf)
    shelf.put(entry("zero1", job=TEXT), name="zero1", parent=key)
    assert ranked(found(None, parent), baseline=None).not_ranked == ()
    alone = shelf.put(entry("zero0"))
    assert ranked(found(None, parent, alone), baseline=None).not_ranked != ()


def test_the_baseline_of_the_only_comparison_among_runs_is_the_baseline(shelf, found):
    alone = shelf.put(entry("zero3", losses=LOSSES), user="bob")
    compared(shelf)
    past = found("question", alone)
    assert past.launched_together is None
    assert names(past) == ["zero3-bob", "zero2", "zero3-alice"]
    assert past.entry_name(None) == "zero3-alice"
    assert past.controls("zero3-alice") == {"fp32": MOVED}


def test_a_strategy_that_was_begun_anew_counts_once(shelf, found):
    parent, key = shelf.put_comparison()
    shelf.put(entry("zero2", outcome="infeasible", losses=(), rounds=()), name="zero2", parent=key)
    second = shelf.put(entry("zero2"), name="zero2", parent=key)
    past = found(None, parent)
    assert [run.run_id for run in past.runs] == [second]
    assert reasons(past) == {"zero2": "was begun anew in the same comparison"}


@pytest.mark.parametrize("controls", ["{torn", [1], {"fp32": ["x"]}, {"fp32": 3}])
def test_a_comparison_with_damaged_controls_is_reported_without_them(
    controls, shelf, found, caplog
):
    parent, _ = compared(shelf, **{CONTROLS_DOCUMENT: controls})
    past = found(None, parent)
    assert past.controls("zero3") == {}
    assert "what comparison made-up comparison varied is not known" in caplog.text


def test_a_loss_that_was_no_number_is_none_in_a_control(shelf, found):
    parent, _ = compared(shelf, **{CONTROLS_DOCUMENT: json.dumps({"fp32": [2.0, None]})})
    (first, second) = found(None, parent).controls("zero3")["fp32"]
    assert first == 2.0
    assert second != second  # noqa: PLR0124 - it is not equal to itself


def test_a_comparison_that_is_gone_leaves_its_strategies(shelf, found, tracker):
    parent, _ = compared(shelf)
    runs = [run.run_id for run in found(None, parent).runs]
    del tracker.runs[parent]
    past = found(None, *runs)
    assert names(past) == ["zero2", "zero3"]
    assert past.comparisons == ()


def test_a_baseline_that_is_no_run_is_told_with_the_names_there_are(shelf, found):
    shelf.put(entry("zero0"))
    shelf.put(entry("zero2-optim-cpu"))
    words = (
        r"^--baseline zero2-optim: no run is called so; did you mean 'zero2-optim-cpu'\? there a"
    )
    with pytest.raises(UsageError, match=words):
        found().entry_name("zero2-optim")
    assert found().entry_name("zero2-optim-cpu") == "zero2-optim-cpu"
