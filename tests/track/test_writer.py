import os
import sys
import threading
import time

import pytest

from orchestrator.track.base import TrackingRefusedError
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
from orchestrator.track.writer import TrackingWriter


@pytest.fixture
def outbox(tmp_path, run_start):
    return Outbox.create(tmp_path / "run", run_start)


def spool(outbox, records):
    with SpoolWriter(outbox.spool_path) as writer:
        for record in records:
            writer.append(record)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nothing_is_opened_before_the_first_step(outbox, run_records):
    opened = threading.Event()

    def open_tracker():
        opened.set()
        return InMemoryTracker()

    writer = TrackingWriter(outbox, open_tracker=open_tracker, poll_s=0.01)
    writer.start()
    facts = [record for record in run_records(2) if record.kind == "facts"]
    spool(outbox, facts)
    assert not opened.wait(0.2)
    spool(outbox, [record for record in run_records(2) if record.kind == "sample"])
    assert opened.wait(10)
    writer.close(timeout_s=10)


def test_what_is_written_just_before_the_close_arrives(outbox, run_records):
    tracker = InMemoryTracker()
    writer = TrackingWriter(outbox, open_tracker=lambda: tracker, poll_s=60)
    writer.start()
    assert writer.run is None
    spool(outbox, run_records(3))
    outbox.add_text("table.txt", "rank")
    outbox.finish(status="FAILED", end_time_ms=5)
    assert writer.close(timeout_s=10) == 0
    (stored,) = tracker.runs.values()
    assert (stored.status, set(stored.files)) == ("FAILED", {"table.txt"})
    assert {point.step for point in stored.points} == {1, 2, 3}
    assert writer.run is not None
    assert writer.run.run_id in tracker.runs
    assert writer.last_error is None


def test_an_outage_is_waited_out(outbox, run_records, caplog):
    tracker = InMemoryTracker()
    tracker.available = False
    writer = TrackingWriter(outbox, open_tracker=lambda: tracker, poll_s=0.01)
    writer.start()
    spool(outbox, run_records(3))
    until(lambda: writer.last_error is not None)
    tracker.available = True
    until(lambda: writer.last_error is None)
    outbox.finish(status="FINISHED", end_time_ms=5)
    assert writer.close(timeout_s=10) == 0
    assert [r.levelname for r in caplog.records if "tracking fails" in r.message] == ["WARNING"]


def test_a_store_that_never_comes_back_costs_no_more_than_the_timeout(outbox, run_records):
    tracker = InMemoryTracker()
    tracker.available = False
    writer = TrackingWriter(outbox, open_tracker=lambda: tracker, poll_s=0.01)
    writer.start()
    spool(outbox, run_records(3))
    outbox.finish(status="FINISHED", end_time_ms=5)
    before = time.monotonic()
    n_unsent = writer.close(timeout_s=0.3)
    assert time.monotonic() - before < 3
    later = InMemoryTracker()
    second = TrackingWriter(outbox, open_tracker=lambda: later)
    second.start()
    assert second.close(timeout_s=10) == 0
    (stored,) = later.runs.values()
    assert len(stored.points) == n_unsent > 0


def test_a_store_that_hangs_does_not_hold_the_run_up(outbox, run_records):
    released = threading.Event()

    def hang():
        released.wait(20)
        return InMemoryTracker()

    writer = TrackingWriter(outbox, open_tracker=hang, poll_s=0.01)
    writer.start()
    spool(outbox, run_records(3))
    before = time.monotonic()
    assert writer.close(timeout_s=0.2) > 0
    assert time.monotonic() - before < 3
    released.set()


@pytest.mark.parametrize(
    "error", [RuntimeError("odd"), TrackingRefusedError("no"), OSError("disk")]
)
def test_no_failure_of_tracking_reaches_the_run(outbox, run_records, error):
    def fail():
        raise error

    writer = TrackingWriter(outbox, open_tracker=fail, poll_s=0.01)
    writer.start()
    spool(outbox, run_records(3))
    until(lambda: writer.last_error is not None)
    assert str(error) in str(writer.last_error)
    assert writer.close(timeout_s=0.1) > 0


def test_a_writer_that_was_never_started_can_be_closed(outbox, run_records):
    spool(outbox, run_records(3))
    assert TrackingWriter(outbox, open_tracker=InMemoryTracker).close(timeout_s=1) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_only_the_writers_thread_steps_back(outbox, run_records):
    seen = []

    def open_tracker():
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return InMemoryTracker()

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    writer = TrackingWriter(outbox, open_tracker=open_tracker, poll_s=0.01)
    writer.start()
    spool(outbox, run_records(1))
    writer.close(timeout_s=10)
    assert seen == [19]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before < 19
