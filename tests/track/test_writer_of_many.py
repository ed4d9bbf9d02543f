"""One writer and many outboxes: a comparison and its strategies."""

import threading
import time
from dataclasses import replace

import pytest

from orchestrator.measure.assembly import StepAssembler
from orchestrator.track.base import TrackingRefusedError, TrackingUnavailableError
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
from orchestrator.track.writer import TrackingWriter


class Store(InMemoryTracker):
    """Remembers in which order it was told what, refuses some runs, and fails for a while."""

    def __init__(self, *, refused=(), refused_files=(), fails_after=None):
        super().__init__()
        self.told = []
        self.asked = []
        self.n_calls = 0
        self.refused, self.refused_files = refused, refused_files
        self.fails_after = fails_after

    def start(self, run):
        self._count()
        self.asked.append(run.key)
        if run.key in self.refused:
            raise TrackingRefusedError(f"no {run.key}")
        found = super().start(run)
        self.told.append(("begin", run.key))
        return found

    def log_points(self, run, points):
        self._count()
        super().log_points(run, points)

    def log_file(self, run, path, *, name):
        self._count()
        if self.key(run) in self.refused_files:
            raise TrackingRefusedError("no files")
        super().log_file(run, path, name=name)

    def finish(self, run, *, status, end_time_ms):
        self._count()
        super().finish(run, status=status, end_time_ms=end_time_ms)
        self.told.append(("end", self.key(run)))

    def key(self, run):
        return self.runs[run.run_id].start.key

    def named(self, key):
        (found,) = [stored for stored in self.runs.values() if stored.start.key == key]
        return found

    def _count(self):
        self.n_calls += 1
        if self.n_calls == self.fails_after:
            raise TrackingUnavailableError("away for a moment")


@pytest.fixture
def whole(tmp_path, run_start):
    return Outbox.create(tmp_path / "whole", replace(run_start, key="whole"))


@pytest.fixture
def strategy(tmp_path, run_start, run_records):
    """Make the outbox of a strategy that has told some steps, or has ended after them."""

    def make(key, *, n_steps=3, ended=True, parent_key="whole"):
        start = replace(run_start, key=key, parent_key=parent_key)
        outbox = Outbox.create(tmp_path / key, start)
        with SpoolWriter(outbox.spool_path) as spool:
            for record in run_records(n_steps):
                spool.append(record)
        if ended:
            outbox.finish(status="FINISHED", end_time_ms=5)
        return outbox

    return make


@pytest.fixture
def points(run_records):
    """What a strategy of so many steps comes to."""

    def make(n_steps=3):
        assembler = StepAssembler()
        told = [point for record in run_records(n_steps) for point in assembler.add(record)]
        return {*told, *assembler.flush()}

    return make


def writer_of(first, store, *others, poll_s=0.01):
    writer = TrackingWriter(first, open_tracker=lambda: store, poll_s=poll_s)
    for outbox in others:
        writer.add(outbox)
    return writer


def delivered(writer, *, timeout_s=10):
    writer.start()
    return writer.close(timeout_s=timeout_s)


def end(outbox):
    outbox.finish(status="FINISHED", end_time_ms=9)


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_comparison_begins_before_its_strategies_and_ends_after_them(whole, strategy, points):
    store = Store()
    end(whole)
    assert delivered(writer_of(whole, store, strategy("a"), strategy("b"))) == 0
    assert store.told == [
        ("begin", "whole"), ("begin", "a"), ("begin", "b"),
        ("end", "b"), ("end", "a"), ("end", "whole"),
    ]  # fmt: skip
    assert store.named("a").points == store.named("b").points == points()
    (whole_id,) = [run_id for run_id, one in store.runs.items() if one.start.key == "whole"]
    assert {one.parent_id for one in store.runs.values()} == {None, whole_id}


def test_the_run_of_the_writer_is_the_first_one_s(whole, strategy):
    store = Store()
    end(whole)
    writer = writer_of(whole, store, strategy("a"))
    delivered(writer)
    assert writer.run is not None
    assert store.key(writer.run) == "whole"


def test_one_that_is_added_while_others_are_delivered_comes_too(whole, strategy, points):
    store = Store()
    a = strategy("a", ended=False)
    writer = writer_of(whole, store, a)
    writer.start()
    until(lambda: ("begin", "a") in store.told)
    writer.add(strategy("b"))
    until(lambda: ("end", "b") in store.told)
    end(a)
    end(whole)
    assert writer.close(timeout_s=10) == 0
    assert store.named("b").points == points()
    assert [key for what, key in store.told if what == "begin"] == ["whole", "a", "b"]


def test_a_strategy_that_is_refused_stops_no_other(whole, strategy, points, caplog):
    store = Store(refused={"b"})
    end(whole)
    writer = writer_of(whole, store, strategy("a"), strategy("b"), strategy("c"))
    n_unsent = delivered(writer)
    assert n_unsent == len(points())
    assert {one.start.key for one in store.runs.values()} == {"whole", "a", "c"}
    assert {one.status for one in store.runs.values()} == {"FINISHED"}
    assert store.named("c").points == points()
    assert writer.last_error == "TrackingRefusedError: no b"
    (told,) = [record.message for record in caplog.records if "does not take" in record.message]
    assert str(strategy("b").folder) in told


def test_a_refused_strategy_is_asked_for_once(whole, strategy):
    store = Store(refused={"a"})
    writer = writer_of(whole, store, strategy("a"))
    writer.start()
    until(lambda: writer.last_error is not None)
    writer.add(strategy("b"))
    until(lambda: ("end", "b") in store.told)
    end(whole)
    writer.close(timeout_s=10)
    assert store.asked == ["whole", "a", "b"]


def test_the_strategies_of_a_comparison_that_is_refused_are_told_of_and_hold_up_nobody(
    whole, strategy, points
):
    store = Store(refused={"whole"})
    lone = strategy("lone", parent_key=None)
    before = time.monotonic()
    n_unsent = delivered(writer_of(whole, store, strategy("a"), lone, strategy("b")))
    assert time.monotonic() - before < 5
    assert {one.start.key for one in store.runs.values()} == {"lone"}
    assert store.named("lone").points == points()
    assert n_unsent == 2 * len(points())


def test_a_comparison_whose_files_are_refused_keeps_its_strategies(whole, strategy, points):
    store = Store(refused_files={"whole"})
    whole.add_text("report/comparison.md", "# all")
    writer = writer_of(whole, store, strategy("a"))
    writer.start()
    until(lambda: writer.last_error is not None)
    writer.add(strategy("b"))
    end(whole)
    writer.close(timeout_s=10)
    assert store.named("a").points == store.named("b").points == points()


def test_one_that_comes_after_all_before_were_refused_is_delivered(whole, strategy, points):
    store = Store(refused={"whole", "a"})
    writer = writer_of(whole, store, strategy("a"))
    writer.start()
    until(lambda: writer.last_error is not None)
    # Time enough for a writer that takes itself for done.
    time.sleep(0.1)
    writer.add(strategy("b", parent_key=None))
    writer.close(timeout_s=10)
    assert store.named("b").points == points()


@pytest.mark.parametrize("fails_after", range(1, 10))
def test_an_outage_at_any_call_loses_and_doubles_nothing(whole, strategy, points, fails_after):
    store = Store(fails_after=fails_after)
    whole.add_text("report/comparison.md", "# all")
    end(whole)
    writer = writer_of(whole, store, strategy("a"), strategy("b"))
    assert delivered(writer) == 0
    assert len(store.runs) == 3
    assert store.named("a").points == store.named("b").points == points()
    assert store.named("whole").files == {"report/comparison.md": b"# all"}
    assert {one.status for one in store.runs.values()} == {"FINISHED"}
    assert store.told[-1] == ("end", "whole")
    assert writer.last_error is None


def test_what_is_unsent_is_counted_over_all(whole, strategy, points):
    store = Store()
    store.available = False
    end(whole)
    writer = writer_of(whole, store, strategy("a"), strategy("b", n_steps=5))
    n_unsent = delivered(writer, timeout_s=0.2)
    assert n_unsent == len(points(3)) + len(points(5))


def test_a_later_writer_delivers_what_an_outage_left(whole, strategy, points):
    store = Store()
    a, b = strategy("a"), strategy("b", ended=False)
    first = writer_of(whole, store, a, b)
    first.start()
    until(lambda: ("end", "a") in store.told)
    store.available = False
    end(b)
    end(whole)
    assert first.close(timeout_s=0.2) > 0
    store.available = True
    assert delivered(writer_of(whole, store, a, b)) == 0
    assert len(store.runs) == 3
    assert store.named("b").points == points()
    assert [told for told in store.told if told == ("end", "a")] == [("end", "a")]


def test_a_comparison_that_goes_on_runs_again_before_its_next_strategy_begins(whole, strategy):
    store = Store()
    whole.finish(status="KILLED", end_time_ms=7)
    delivered(writer_of(whole, store, strategy("a")))
    assert store.named("whole").status == "KILLED"
    whole.reopen()
    writer = writer_of(whole, store, strategy("b", ended=False))
    writer.start()
    until(lambda: ("begin", "b") in store.told)
    assert store.named("whole").status is None
    assert len(store.runs) == 3
    end(whole)
    writer.close(timeout_s=10)
    assert store.named("whole").status == "FINISHED"


def test_outboxes_that_come_from_other_threads_all_arrive(whole, strategy, points):
    store = Store()
    writer = writer_of(whole, store)
    outboxes = [strategy(f"s{number}") for number in range(8)]
    writer.start()
    threads = [threading.Thread(target=writer.add, args=(outbox,)) for outbox in outboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end(whole)
    assert writer.close(timeout_s=10) == 0
    assert len(store.runs) == 9
    assert all(store.named(f"s{number}").points == points() for number in range(8))
