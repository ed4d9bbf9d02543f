from dataclasses import replace

import pytest

from orchestrator.launch.run import Finished
from orchestrator.measure.sample import Record
from orchestrator.measure.summary import summarize
from orchestrator.render.run import plan_text, result_text, where_to_look
from orchestrator.track.base import TrackedRun
from orchestrator.track.store import embedded_store, store_at
from tests import small_jobs
from tests.launch import records


@pytest.fixture
def finished(tmp_path):
    def make(n_ranks, *, outcome="ok", n_steps=5):
        told: list[Record] = [records.facts(rank, world_size=n_ranks) for rank in range(n_ranks)]
        told += [
            records.sample(rank, step=step, loss=4.0 / step, step_s=0.5 + rank / 1000)
            for rank in range(n_ranks)
            for step in range(1, n_steps + 1)
        ]
        if n_steps:
            told.append(records.evaluation(n_steps))
        record = summarize(told, name="small", outcome=outcome, started_unix_s=990.0)
        return Finished(
            record=record,
            failure=None,
            folder=tmp_path / "runs" / "one",
            tracked=TrackedRun(experiment_id="3", run_id="abc"),
            n_unsent=0,
            receipt=None,
        )

    return make


def test_a_plan_says_how_the_batch_is_made_up(tmp_path):
    text = plan_text(small_jobs.plan_job(tmp_path, zero={"stage": 2}))
    rows = dict(line.split(maxsplit=1) for line in text.splitlines()[1:])
    assert text.startswith("Plan of small\n")
    assert rows["batch"] == "16 = 4 micro x 2 accumulation x 2 workers"
    assert rows["strategy"] == "zero2, fp32, deepspeed engine"
    assert rows["length"] == "4 optimizer steps"
    assert rows["runs"] == "on   2 workers on cpu, 1 CPU each"


def test_one_worker_and_one_epoch_are_singular(tmp_path):
    plan = small_jobs.plan_job(
        tmp_path, resources={"workers": 1}, training={"steps": None, "epochs": 1}
    )
    assert "x 1 worker\n" in plan_text(plan)
    assert "1 epoch\n" in plan_text(plan)


def test_notes_of_a_plan_are_shown(tmp_path):
    plan = small_jobs.plan_job(tmp_path, checkpoint={"every_steps": 5})
    assert "checkpoints are not written by this version" in plan_text(plan)


def test_two_ranks_have_a_row_each(finished):
    text = result_text(finished(2), look="LOOK")
    table, totals, look = text.split("\n\n")
    first_words = [line.split()[0] for line in table.splitlines()]
    assert first_words == ["rank", "0", "1", "fullest:", "slowest:"]
    assert "outcome    ok" in totals
    assert "loss       4.0000 at first, 0.8000 at last" in totals
    assert "evaluation loss 0.2500, accuracy 97.75% on 355 samples" in totals
    assert "peak       4.0 MiB of tensors on rank 0, the fullest" in totals
    # From 990 to the end of the first step at 1001.
    assert "start      11.0 s to the first optimizer step" in totals
    assert look == "LOOK"


def test_64_ranks_are_shown_by_their_spread(finished):
    text = result_text(finished(64), look="")
    table = text.split("\n\n")[0].splitlines()
    assert table[0].startswith("64 ranks")
    assert [line.split()[0] for line in table[1:4]] == ["min", "median", "max"]
    assert "slowest: rank 63 (node-a, cpu), 563.0 ms a step" in table
    assert max(map(len, text.splitlines())) < 160


def test_a_run_that_did_nothing_shows_no_empty_table(finished):
    nothing = finished(0, outcome="interrupted", n_steps=0)
    text = result_text(nothing, look="LOOK")
    assert text.split("\n\n") == ["  outcome    interrupted\n  steps      0", "LOOK"]


def test_points_that_did_not_arrive_are_told_with_their_place(finished):
    text = result_text(replace(finished(2), n_unsent=12), look="")
    assert "12 metric points did not reach the tracking store; they are kept in" in text


def test_the_page_of_the_run_is_named(finished, tmp_path):
    text = where_to_look(finished(2), store=embedded_store(tmp_path), home=None)
    assert text.startswith("Look at it with: make ui\nthen open http://127.0.0.1:5000/#/exper")
    assert "/experiments/3/runs/abc" in text


def test_a_state_folder_of_the_users_own_is_given_to_the_page_too(finished, tmp_path):
    text = where_to_look(finished(2), store=embedded_store(tmp_path), home=tmp_path)
    assert text.startswith(f"Look at it with: make ui ARGS='--home {tmp_path}'\n")


def test_a_server_is_opened_where_it_is(finished, tmp_path):
    store = store_at("https://mlflow.example:8443/", state=tmp_path)
    text = where_to_look(finished(2), store=store, home=None)
    assert text.startswith("Look at it at https://mlflow.example:8443/#/experiments/3/runs/abc")


def test_another_database_has_no_page_of_ours(finished, tmp_path):
    store = store_at(f"sqlite:///{tmp_path}/other.db", state=tmp_path)
    text = where_to_look(finished(2), store=store, home=None)
    assert text == f"Recorded in sqlite:///{tmp_path}/other.db as run abc"


def test_a_store_that_was_not_reached_is_not_linked(finished, tmp_path):
    lost = replace(finished(2), tracked=None)
    text = where_to_look(lost, store=embedded_store(tmp_path), home=None)
    assert text == f"Recorded in {tmp_path}/runs/one; the tracking store was not reached"
