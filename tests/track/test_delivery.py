import json
from contextlib import suppress
from dataclasses import replace

import pytest

from orchestrator.measure.assembly import StepAssembler
from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import TrackingUnavailableError
from orchestrator.track.delivery import Delivery
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter

SUMMARY = (MetricPoint(key="summary/peak_mib", value=3.0, step=0, time_ms=3_000_000),)


def expected_points(records):
    assembler = StepAssembler()
    points = [point for record in records for point in assembler.add(record)]
    return {*points, *assembler.flush(), *SUMMARY}


@pytest.fixture
def outbox(tmp_path, run_start):
    return Outbox.create(tmp_path / "run", run_start)


def spool(outbox, records):
    with SpoolWriter(outbox.spool_path) as writer:
        for record in records:
            writer.append(record)


def finish(outbox):
    outbox.finish(status="FINISHED", end_time_ms=3_000_000, points=SUMMARY)


def only_run(tracker):
    (run,) = tracker.runs.values()
    return run


def test_a_whole_run_arrives(outbox, run_records):
    spool(outbox, run_records(4))
    outbox.add_text("plan/job.yaml", "name: small\n")
    finish(outbox)
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    delivery.send(tracker)
    run = only_run(tracker)
    assert run.points == expected_points(run_records(4))
    assert run.files == {"plan/job.yaml": b"name: small\n"}
    assert (run.status, run.end_time_ms) == ("FINISHED", 3_000_000)
    assert delivery.done


def test_a_run_that_grows_arrives_bit_by_bit(outbox, run_records):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    records = run_records(6)
    for at in range(0, len(records), 3):
        spool(outbox, records[at : at + 3])
        delivery.send(tracker)
        assert only_run(tracker).status is None
    finish(outbox)
    delivery.send(tracker)
    assert only_run(tracker).points == expected_points(records)


def test_an_outage_at_any_moment_loses_and_doubles_nothing(outbox, run_records):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    records = run_records(6)
    for number, record in enumerate(records):
        spool(outbox, [record])
        tracker.available = number % 3 == 0
        with suppress(TrackingUnavailableError):
            delivery.send(tracker)
    finish(outbox)
    tracker.available = False
    with pytest.raises(TrackingUnavailableError, match="switched off"):
        delivery.send(tracker)
    tracker.available = True
    delivery.send(tracker)
    assert only_run(tracker).points == expected_points(records)
    assert only_run(tracker).status == "FINISHED"


def test_a_later_process_goes_on_where_one_was_killed(outbox, run_records):
    tracker = InMemoryTracker()
    records = run_records(6)
    spool(outbox, records[:10])
    Delivery(outbox).send(tracker)
    n_delivered = outbox.delivered().n_points
    assert n_delivered == len(only_run(tracker).points) > 0
    spool(outbox, records[10:])
    finish(outbox)
    later = Delivery(Outbox(outbox.folder))
    only_run(tracker).points.clear()
    later.send(tracker)
    assert len(only_run(tracker).points) == len(expected_points(records)) - n_delivered
    assert len(tracker.runs) == 1


def test_a_delivery_that_forgot_how_far_it_was_doubles_nothing(outbox, run_records):
    tracker = InMemoryTracker()
    spool(outbox, run_records(4))
    finish(outbox)
    Delivery(outbox).send(tracker)
    (outbox.folder / "delivered.json").write_text("{torn")
    Delivery(outbox).send(tracker)
    assert only_run(tracker).points == expected_points(run_records(4))


def test_a_thinned_run_arrives_the_same_in_one_piece_or_by_two_processes(outbox, run_records):
    # 300 ranks' lines at a step a second are more than go out, once the stock is spent.
    records = sorted(run_records(25, world_size=300), key=lambda record: record.time_unix_s)
    middle = len(records) * 2 // 3
    tracker = InMemoryTracker()
    spool(outbox, records[:middle])
    Delivery(outbox).send(tracker)
    assert outbox.delivered().n_points == len(only_run(tracker).points)
    spool(outbox, records[middle:])
    finish(outbox)
    Delivery(Outbox(outbox.folder)).send(tracker)
    assert only_run(tracker).points == expected_points(records)
    keys = [(point.key, point.step) for point in only_run(tracker).points]
    assert len(set(keys)) == len(keys)
    steps = {step for key, step in keys if key == "time_ms_step/rank_123"}
    assert {1, 25} < steps < {*range(1, 26)}
    assert {step for key, step in keys if key == "train/loss"} == {*range(1, 26)}


def test_unsent_points_are_counted_from_the_disk(outbox, run_records):
    tracker = InMemoryTracker()
    records = run_records(6)
    assert Delivery(outbox).count_unsent() == 0
    spool(outbox, records[:10])
    Delivery(outbox).send(tracker)
    assert Delivery(outbox).count_unsent() == len(
        expected_points(records[:10]) - only_run(tracker).points - {*SUMMARY}
    )
    spool(outbox, records[10:])
    finish(outbox)
    missing = expected_points(records) - only_run(tracker).points
    assert Delivery(outbox).count_unsent() == len(missing) > 0
    Delivery(outbox).send(tracker)
    assert Delivery(outbox).count_unsent() == 0


def test_a_run_that_has_told_nothing_yet_can_begin(outbox):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    assert delivery.run is None
    delivery.begin(tracker)
    assert delivery.run is not None
    assert delivery.run.run_id in tracker.runs
    assert outbox.delivered().run == delivery.run
    assert not delivery.done


def test_a_run_that_has_begun_needs_no_store_to_begin_again(outbox):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    delivery.begin(tracker)
    tracker.available = False
    delivery.begin(tracker)
    Delivery(outbox).begin(tracker)
    assert len(tracker.runs) == 1


def test_a_begin_in_an_outage_is_made_up_for(outbox, run_records):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    tracker.available = False
    with pytest.raises(TrackingUnavailableError, match="switched off"):
        delivery.begin(tracker)
    assert outbox.delivered().run is None
    tracker.available = True
    spool(outbox, run_records(4))
    finish(outbox)
    delivery.send(tracker)
    assert only_run(tracker).points == expected_points(run_records(4))


def test_a_run_that_was_delivered_whole_goes_on_as_the_same_run(outbox, run_records):
    tracker = InMemoryTracker()
    records = run_records(6)
    spool(outbox, records[:10])
    outbox.finish(status="KILLED", end_time_ms=2_000_000)
    Delivery(outbox).send(tracker)
    assert only_run(tracker).status == "KILLED"
    before = outbox.delivered().run

    outbox.reopen()
    assert outbox.finished() is None
    assert outbox.delivered().run == before
    later = Delivery(Outbox(outbox.folder))
    assert not later.done
    later.begin(tracker)
    assert only_run(tracker).status is None

    spool(outbox, records[10:])
    finish(outbox)
    later.send(tracker)
    assert later.done
    assert (only_run(tracker).status, only_run(tracker).end_time_ms) == ("FINISHED", 3_000_000)
    assert only_run(tracker).points >= expected_points(records)


def test_reopening_is_told_to_the_store_once_and_after_an_outage(outbox):
    tracker = InMemoryTracker()
    finish(outbox)
    Delivery(outbox).send(tracker)
    outbox.reopen()
    outbox.reopen()
    tracker.available = False
    with pytest.raises(TrackingUnavailableError, match="switched off"):
        Delivery(outbox).begin(tracker)
    tracker.available = True
    Delivery(outbox).begin(tracker)
    assert only_run(tracker).status is None
    tracker.available = False
    Delivery(outbox).begin(tracker)


def test_a_run_that_never_ended_can_be_reopened(outbox, run_records):
    tracker = InMemoryTracker()
    spool(outbox, run_records(4)[:8])
    Delivery(outbox).send(tracker)
    n_delivered = outbox.delivered().n_points
    outbox.reopen()
    assert outbox.delivered().n_points == n_delivered > 0
    spool(outbox, run_records(4)[8:])
    finish(outbox)
    Delivery(outbox).send(tracker)
    assert only_run(tracker).points == expected_points(run_records(4))


def test_a_folder_of_before_runs_could_go_on_is_understood(outbox):
    tracker = InMemoryTracker()
    Delivery(outbox).begin(tracker)
    path = outbox.folder / "delivered.json"
    values = json.loads(path.read_text())
    del values["goes_on"]
    path.write_text(json.dumps(values))
    assert outbox.delivered().run is not None


def test_what_a_child_is_part_of_is_kept_in_its_folder(tmp_path, run_start):
    start = replace(run_start, parent_key="whole")
    assert Outbox.create(tmp_path / "child", start).start() == start


def test_a_file_that_changes_is_sent_again_and_one_that_does_not_is_not(outbox):
    tracker, delivery = InMemoryTracker(), Delivery(outbox)
    outbox.add_text("a.txt", "one")
    outbox.add_text("b.txt", "two")
    delivery.send(tracker)
    only_run(tracker).files.clear()
    outbox.add_text("a.txt", "three")
    delivery.send(tracker)
    assert only_run(tracker).files == {"a.txt": b"three"}


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "", "x/../../a.txt"])
def test_an_artifact_cannot_leave_its_folder(outbox, name):
    with pytest.raises(ValueError, match="is no relative path"):
        outbox.add_text(name, "text")


@pytest.mark.ray
@pytest.mark.parametrize("n_ranks", [2, 17])
def test_sending_a_run_to_mlflow_twice_leaves_the_same_rows(
    outbox, run_records, mlflow_store, n_ranks
):
    import sqlite3

    def rows():
        connection = sqlite3.connect(mlflow_store.database)
        found = connection.execute("SELECT key, value, step, timestamp FROM metrics").fetchall()
        connection.close()
        return sorted(found)

    records = run_records(30, world_size=n_ranks)
    spool(outbox, records)
    outbox.add_text("table.csv", "rank\n0\n")
    finish(outbox)
    Delivery(outbox).send(MlflowTracker(mlflow_store))
    once = rows()
    points = expected_points(records)
    assert once == sorted((p.key, p.value, p.step, p.time_ms) for p in points)
    assert len({(key, step) for key, _, step, _ in once}) == len(once)
    (outbox.folder / "delivered.json").unlink()
    Delivery(outbox).send(MlflowTracker(mlflow_store))
    assert rows() == once
