import time
from pathlib import Path

import pytest

from orchestrator.launch.comparison.report import Reported
from orchestrator.launch.past_runs import past_runs, ranked
from orchestrator.render.report import reported_text, told_of
from orchestrator.track.memory import InMemoryTracker
from orchestrator.track.read import InMemoryRunReader
from tests.compare.made_up import entry
from tests.launch.stored_runs import FIRST_MS, Shelf


@pytest.fixture
def tracker():
    return InMemoryTracker()


@pytest.fixture
def shelf(tracker, tmp_path):
    return Shelf(tracker, tmp_path / "outboxes")


@pytest.fixture
def past(tracker):
    return lambda: past_runs(InMemoryRunReader(tracker), experiment="question", run_ids=[])


def text_of(past, *, baseline=None):
    ranking = ranked(past, baseline=baseline)
    reported = Reported(ranking=ranking, path=Path("/there/report.md"))
    return reported_text(reported, past, baseline=baseline, seconds=3.0, width=None)


def clock(minutes, form="%Y-%m-%d %H:%M"):
    return time.strftime(form, time.localtime(FIRST_MS / 1000 + minutes * 60))


def test_the_first_line_says_what_it_is_on_and_who_ran_it_when(shelf, past):
    shelf.put(entry("zero0"), minutes=1)
    assert text_of(past()).startswith(f"question: 1 run by alice, started {clock(1)}\n\n")
    shelf.put(entry("zero1"), minutes=3, user="bob")
    until = f"{clock(1)} to {clock(3, '%H:%M')}"
    assert text_of(past()).startswith(f"question: 2 runs by alice and bob, started {until}\n\n")
    shelf.put(entry("zero2"), minutes=3 + 24 * 60, user=None)
    shelf.put(entry("zero3"), minutes=2, user="carol")
    until = f"{clock(1)} to {clock(3 + 24 * 60)}"
    assert text_of(past()).startswith(
        f"question: 4 runs by alice, carol and bob, started {until}\n\n"
    )


def test_a_handful_of_what_is_left_out_is_told_and_the_rest_counted(shelf, past):
    shelf.put(entry("zero0"))
    for n in range(9):
        shelf.put(None, name=f"lost{n}\n  and two lines")
    lines = text_of(past()).splitlines()
    assert lines[1] == "Left out:"
    assert lines[2] == "  lost0 and two lines run-2: its artifacts are not there"
    assert lines[7:9] == ["  and 4 more", ""]


def test_that_runs_are_not_ranked_stands_before_the_table_and_why_below(shelf, past):
    shelf.put(entry("zero0"))
    shelf.put(entry("zero1", job={"data": {"source": "text"}}))
    text = text_of(past())
    assert "not ranked" in text.splitlines()[1]
    assert text.index("peak MiB") < text.index("another data.source: digits (zero0), text (zero1)")


def test_a_baseline_that_failed_is_said_to_be_replaced(shelf, past):
    shelf.put(entry("zero0", outcome="failed", message="no"), status="FAILED")
    shelf.put(entry("zero1"))
    words = "zero0 did not run to its end: held against zero1"
    assert words in text_of(past(), baseline="zero0")
    assert words not in text_of(past())
    assert words not in text_of(past(), baseline="zero1")


def test_the_last_line_says_where_the_report_lies(shelf, past):
    shelf.put(entry("zero0"))
    assert text_of(past()).endswith(
        "Took 3.0 s. The report, with its plots and tables: /there/report.md"
    )


def test_what_is_written_names_every_run_its_store_and_what_was_left_out(shelf, past):
    run_id = shelf.put(entry("zero0"))
    shelf.put(None, name="lost")
    told = dict(told_of(past(), store="http://head:5000"))
    assert told == {
        "runs": f"zero0 {run_id} (ids in the CSV)",
        "started": clock(1),
        "found in": "http://head:5000",
        "run by": "alice",
        "left out": "lost run-2: its artifacts are not there",
    }


def test_many_runs_are_counted_and_not_named(shelf, past):
    for n in range(31):
        shelf.put(entry(f"s{n}"))
    assert dict(told_of(past(), store="x"))["runs"] == "31 (ids in the CSV)"
