"""What a person reads of a comparison, before it and after it."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.launch.comparison.planned import plan_strategies
from orchestrator.render.compare import compared_text, planned_text
from orchestrator.track.base import TrackedRun
from orchestrator.track.store import embedded_store, store_at
from tests import small_jobs
from tests.forecast.made_up import make_forecast
from tests.launch.comparison.scripted import Ranks, Workshop, failing

STAGES = {"axes": {"zero.stage": [0, 1]}}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Of three strategies the second failed, and then Ctrl-C was pressed."""
    folder = tmp_path_factory.mktemp("compare")
    shop = Workshop(folder, {"axes": {"zero.stage": [0, 1, 2]}})
    ranks = Ranks({"zero1": failing(), "zero0/2": KeyboardInterrupt()})
    compared = shop.compare(ranks)
    return replace(compared, tracked=TrackedRun(experiment_id="3", run_id="abc"), seconds=75.0)


@pytest.fixture
def planned(tmp_path):
    job = small_jobs.write_job(tmp_path, compare=STAGES)
    return plan_strategies(job, machine=small_jobs.MACHINE, environment={})


def text_of(compared, *, home=None, store=None, width=None):
    state = compared.folder.parents[1]
    return compared_text(compared, store=store or embedded_store(state), home=home, width=width)


def test_every_strategy_is_told_with_its_batch_and_its_forecast(planned):
    made = make_forecast()
    told = [replace(one, plan=replace(one.plan, forecast=made)) for one in planned]
    told[1] = replace(told[1], infeasible="it does not fit")
    lines = planned_text(told, name="small").splitlines()
    assert lines[0] == "Comparison of small: 2 strategies"
    assert lines[1].split("  ")[1].strip() == "strategy"
    assert lines[2].split()[:5] == ["zero0", "2", "4", "x", "2"]
    assert lines[2].endswith(f"  {made.verdict.value}")
    assert lines[3].endswith(f"  {made.verdict.value}, not run")


def test_without_forecasts_it_still_says_what_is_not_run(planned):
    told = [planned[0], replace(planned[1], infeasible="too few cores")]
    lines = planned_text(told, name="small").splitlines()
    assert lines[2].split()[-1] == "-"
    assert lines[3].endswith("-  not run")
    assert [line for line in lines if line != line.rstrip()] == []


def test_one_strategy_is_singular(planned):
    assert planned_text(planned[:1], name="small").startswith("Comparison of small: 1 strategy\n")


def test_what_was_interrupted_says_so_first_and_how_to_go_on(compared):
    first, table, *_ = text_of(compared).split("\n\n")
    assert first == (
        "Interrupted: 1 of 3 strategies are complete; the same command goes on with what is missing"
    )
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["*", "zero1", "*"]
    assert "The report so far: " in text_of(compared)


def test_what_is_complete_does_not_speak_of_interruption(compared):
    text = text_of(replace(compared, interrupted=False))
    assert "Interrupted" not in text
    assert "Took 1 min 15 s. The report, with its plots and tables: " in text


def test_what_failed_says_why_and_where_to_read_on(compared):
    text = text_of(compared)
    details = compared.folder / "strategies/01-zero1/artifacts/logs/failure.txt"
    assert "  zero1  failed  rank 1 failed after step 2: ValueError: mine; see logs/" in text
    assert f"\n\ndetails of what failed\n  zero1  {details}\n\n" in text
    assert "line 3" in details.read_text()


def test_paths_are_told_as_one_would_type_them_here(compared, monkeypatch):
    monkeypatch.chdir(compared.folder)
    assert "  zero1  strategies/01-zero1/artifacts/logs/failure.txt\n" in text_of(compared)


def test_it_says_what_to_type_to_look_at_it(compared):
    lines = text_of(compared, home=Path("my home")).splitlines()
    arguments = shlex.split(lines[-3].removeprefix("Look at it with: make ui "))
    assert arguments == ["ARGS=--home 'my home'"]
    assert lines[-2].startswith("  side by side    http://127.0.0.1:5000/#/experiments/3/runs?")
    assert lines[-1].startswith("  report and log  http://127.0.0.1:5000/#/experiments/3/runs/abc?")
    assert "Look at it with: make ui\n" in text_of(compared)


def test_a_store_of_somebody_elses_is_named(compared, tmp_path):
    server = store_at("http://mlflow.example:5000", state=tmp_path)
    assert "  side by side    http://mlflow.example:5000/#/experiments/3/" in text_of(
        compared, store=server
    )
    file = store_at(f"sqlite:///{tmp_path / 'other.db'}", state=tmp_path)
    assert f"Recorded in {file.uri} as run abc" in text_of(compared, store=file)


def test_a_store_that_was_not_reached_is_told_with_where_everything_is(compared):
    text = text_of(replace(compared, tracked=None, n_unsent=42))
    assert (
        f"42 metric points did not reach the tracking store; they are kept in {compared.folder}"
        in text
    )
    assert text.endswith(
        f"The tracking store was not reached; everything is kept in {compared.folder}"
    )


def test_before_anything_was_told_there_is_no_table(compared):
    ranking = replace(compared.reported.ranking, rows=())
    nothing = replace(compared, reported=replace(compared.reported, ranking=ranking))
    assert "strategy  " not in text_of(nothing)
    assert text_of(nothing).startswith("Interrupted: ")


def test_on_a_narrow_terminal_the_table_fits(compared):
    table = text_of(compared, width=72).split("\n\n")[1]
    assert max(map(len, table.splitlines())) <= 72
    assert "left out for want of room" in table
