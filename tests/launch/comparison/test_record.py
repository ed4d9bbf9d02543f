"""What a comparison leaves: in the tracking store, in its folder, in its answer."""

import csv
import io
import json

import pytest

from orchestrator.track.base import COMPARISON, KIND_TAG
from tests.launch.comparison.scripted import Ranks, Workshop, failing, outcomes

pytestmark = pytest.mark.ray

# From the design: what scripts lean on.
ROW = {"strategy", "outcome", "run_id", "peak_bytes", "forecast_peak_bytes", "samples_per_s",
       "samples_per_s_interval", "final_loss", "same_loss", "max_loss_difference",
       "pareto"}  # fmt: skip
STAGES = {"axes": {"zero.stage": [0, 1]}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("compare"), {"axes": {"zero.stage": [0, 1, 2]}})


@pytest.fixture(scope="module")
def compared(shop):
    return shop.compare(Ranks({"zero1": failing()}), draws=True)


@pytest.fixture
def runs(shop, compared):
    """What the store has, by name."""
    assert not compared.interrupted
    return {run.start.name: run for run in shop.tracker.runs.values()}


def test_the_store_has_a_run_of_the_comparison_with_a_child_for_each_strategy(runs, compared):
    assert list(runs) == ["small comparison", "zero0", "zero1", "zero2"]
    parent = runs.pop("small comparison")
    assert parent.start.key == compared.folder.name
    assert parent.start.parent_key is None
    assert parent.start.tags[KIND_TAG] == COMPARISON
    assert parent.start.params["strategies"] == "zero0, zero1, zero2"
    for child in runs.values():
        assert child.start.parent_key == parent.start.key
        assert child.start.experiment == parent.start.experiment
        assert KIND_TAG not in child.start.tags
        assert child.start.tags["mlflow.user"] == "me"
    assert [child.start.params["zero.stage"] for child in runs.values()] == ["0", "1", "2"]


def test_every_run_is_ended_by_its_outcome(runs):
    assert {name: run.status for name, run in runs.items()} == {
        "small comparison": "FAILED",
        "zero0": "FINISHED",
        "zero1": "FAILED",
        "zero2": "FINISHED",
    }


def test_a_strategy_has_the_metrics_of_its_first_round_alone(runs):
    losses = [point for point in runs["zero0"].points if point.key == "train/loss"]
    assert sorted((point.step, point.value) for point in losses) == [
        (step, pytest.approx(4.0 / step)) for step in (1, 2, 3, 4)
    ]


def test_every_strategy_keeps_its_documents_and_a_failed_one_its_logs(runs):
    documents = {"job.yaml", "plan.json", "deepspeed.json", "environment.json", "summary.json"}
    for name in ("zero0", "zero1", "zero2"):
        assert set(runs[name].files) >= documents
        assert "plots/step_time.png" in runs[name].files
    assert {"logs/failure.txt", "logs/rank_01.log.txt"} <= set(runs["zero1"].files)
    throughput = json.loads(runs["zero0"].files["throughput.json"])
    assert [part["round"] for part in throughput["rounds"]] == [1, 2]


def test_the_report_is_an_artifact_of_the_comparison(runs, compared):
    files = runs["small comparison"].files
    tables = {"report/comparison.md", "report/comparison.csv", "report/losses.csv"}
    assert set(files) >= tables | {"job.yaml"}
    assert any(name.startswith("report/plots/") and name.endswith(".png") for name in files)
    assert files["report/comparison.md"] == compared.reported.path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(files["report/comparison.csv"].decode())))
    assert [row["strategy"] for row in rows] == ["zero0", "zero1", "zero2"]


def test_the_answer_has_what_scripts_lean_on(runs, compared):
    answer = compared.reported.ranking.to_json()
    assert answer.keys() >= {"rows", "baseline", "winners"}
    assert answer["baseline"] == "zero0"
    assert set(answer["winners"]) == {"fastest", "smallest", "balanced"}
    for row in answer["rows"]:
        assert row.keys() >= ROW
        stored = {run_id for run_id, run in runs_by_id(runs).items() if run == row["strategy"]}
        assert stored == {row["run_id"]}
    assert compared.tracked.run_id == "run-1"
    assert compared.n_unsent == 0


def runs_by_id(runs):
    return {f"run-{number}": name for number, name in enumerate(runs, start=1)}


def test_its_state_says_that_it_is_complete(compared):
    state = json.loads((compared.folder / "state.json").read_text())
    assert state["complete"] is True
    assert state["strategies"] == ["zero0", "zero1", "zero2"]
    assert 0 < state["spent_s"] == compared.seconds


def test_a_store_that_is_away_costs_the_comparison_nothing_and_hears_of_it_later(tmp_path):
    shop = Workshop(tmp_path, STAGES)
    shop.tracker.available = False
    ranks = Ranks({"zero1/2": KeyboardInterrupt()})
    stopped = shop.compare(ranks, delivery_timeout_s=0.2)
    assert outcomes(stopped) == {"zero0": "ok", "zero1": "ok"}
    assert stopped.tracked is None
    assert stopped.n_unsent > 0
    assert [row.entry.record.run_id for row in stopped.reported.ranking.rows] == [None, None]
    assert stopped.reported.path.is_file()

    shop.tracker.available = True
    compared = shop.compare(Ranks())
    assert compared.n_unsent == 0
    names = [run.start.name for run in shop.tracker.runs.values()]
    assert names == ["small comparison", "zero0", "zero1"]
    for run in list(shop.tracker.runs.values())[1:]:
        assert len([point for point in run.points if point.key == "train/loss"]) == 4


def test_the_longest_names_are_told_apart_in_files_and_in_the_store(tmp_path):
    variants = [{"name": f"{'long' * 30}-{n}", "zero.stage": n} for n in (0, 1)]
    shop = Workshop(tmp_path, {"variants": variants, "rounds": 1}, name="j" * 63)
    compared = shop.compare(Ranks({"control fp32-0": KeyboardInterrupt()}))
    assert [len(name) for name in outcomes(compared)] == [80, 82]
    keys = [run.start.key for run in shop.tracker.runs.values()]
    assert len(set(keys)) == 3
    longest = max(len(path.name.encode()) for path in shop.home.path.rglob("*"))
    assert longest <= 255
