"""Reports from ranks: every rank reports equally often, or the run would stand still."""

import time
from functools import partial
from threading import Event
from typing import Any

import pytest

from orchestrator.launch.on_ray.reporter import REPORT_EVERY_S, Reporter, report_every
from orchestrator.launch.unsent import UnsentRecords, unsent_records
from tests.launch import records


@pytest.fixture
def steps_sent(tmp_path):
    """Let a rank that keeps what it has not sent yet go through a run."""
    return partial(sent_in_a_run, kept_in=tmp_path)


def sent_in_a_run(n_steps, *, kept_in, step_s=None, pace_after=4):
    """Let a rank go through a run; gives the steps in each of its reports."""
    sent: list[dict[str, Any]] = []
    reporter = Reporter(send=sent.append)
    reporter.begin(0, unsent=None if kept_in is None else UnsentRecords(kept_in, rank=0))
    reporter.put(records.facts())
    for step in range(1, n_steps + 1):
        reporter.put(records.sample(step=step))
        if step == pace_after and step_s is not None:
            reporter.pace(step_s)
    reporter.close()
    return [[r["step"] for r in report["records"] if r["kind"] == "sample"] for report in sent]


@pytest.mark.parametrize("n_steps", [1, 2, 4, 5, 37, 1000])
@pytest.mark.parametrize("step_s", [1e-9, 0.003, 0.7, 2.0, 60.0])
@pytest.mark.parametrize("keeps", [True, False])
def test_every_record_is_sent_once_and_in_order(n_steps, step_s, keeps, tmp_path):
    sent = sent_in_a_run(n_steps, step_s=step_s, kept_in=tmp_path if keeps else None)
    assert [step for report in sent for step in report] == list(range(1, n_steps + 1))


def test_the_first_step_is_reported_at_once(steps_sent):
    assert steps_sent(100)[0] == [1]


def test_slow_steps_are_reported_one_by_one(steps_sent):
    # The pace is known after the fourth step; the last report is what is left, which is nothing.
    assert steps_sent(8, step_s=60.0) == [[1], [2, 3, 4, 5], [6], [7], [8], []]


@pytest.mark.parametrize("step_s", [0.0, 1e-12, 1e-4, 0.01, 0.3, 1.9])
def test_quick_steps_are_reported_every_two_seconds_or_ten_thousand_steps(step_s):
    every = report_every(step_s)
    assert 1 <= every <= 10_000
    if every < 10_000:
        assert REPORT_EVERY_S <= every * step_s < REPORT_EVERY_S + step_s


def test_where_nothing_is_kept_every_step_is_reported_until_the_pace_is_known():
    # Slow ranks would else be taken for hung.
    sent = sent_in_a_run(100, kept_in=None, step_s=0.1)
    assert sent[:5] == [[1], [2], [3], [4], list(range(5, 21))]


def test_ranks_with_the_same_pace_report_at_the_same_steps(steps_sent):
    # The pace is one number for all; what each does besides must not matter.
    ranks = [steps_sent(500, step_s=0.05) for _ in range(3)]
    assert ranks[0] == ranks[1] == ranks[2]
    assert len(ranks[0]) == 1 + 500 // 40 + 1


def test_an_error_of_the_controller_reaches_the_rank():
    def send(_report):
        raise ConnectionError("the controller is gone")

    reporter = Reporter(send=send)
    reporter.put(records.sample(step=1))
    with pytest.raises(ConnectionError, match="the controller is gone"):
        reporter.close()


def test_a_controller_that_never_answers_is_not_waited_for_longer_than_told():
    forever = Event()

    def send(_report):
        forever.wait()

    reporter = Reporter(send=send)
    reporter.put(records.sample(step=1))
    started_s = time.monotonic()
    reporter.close(timeout_s=0.1)
    waited_s = time.monotonic() - started_s
    forever.set()
    assert 0.1 <= waited_s < 10


def test_nothing_is_lost_with_a_rank_whose_peers_never_come_to_the_report(tmp_path):
    forever = Event()

    def send(_report):
        forever.wait()

    reporter = Reporter(send=send)
    reporter.begin(0, unsent=UnsentRecords(tmp_path, rank=0))
    reporter.pace(0.4)
    told = [records.sample(step=step) for step in range(1, 30)]
    for sample in told:
        reporter.put(sample)
    kept = list(unsent_records(tmp_path))
    forever.set()
    reporter.close()
    assert kept == told


def test_what_is_reported_does_not_pile_up_on_the_disk(tmp_path):
    reporter = Reporter(send=lambda _: None)
    reporter.begin(0, unsent=UnsentRecords(tmp_path, rank=0))
    reporter.pace(2.0)
    for step in range(1, 101):
        reporter.put(records.sample(step=step))
    reporter.close()
    # The last report is what is left, which is nothing.
    assert list(unsent_records(tmp_path)) == [records.sample(step=100)]


def test_every_run_of_a_group_is_reported_under_its_number_and_at_its_own_pace():
    sent: list[dict[str, Any]] = []
    reporter = Reporter(send=sent.append)
    for run, step_s in enumerate((0.7, 60.0)):
        reporter.begin(run)
        for step in range(1, 5):
            reporter.put(records.sample(step=step))
            if step == 1:
                reporter.pace(step_s)
        reporter.end(wait=True)
    reporter.close()
    told = [(report["run"], [r["step"] for r in report["records"]]) for report in sent]
    assert told == [
        (0, [1]),
        (0, [2, 3]),
        (0, [4]),
        (1, [1]),
        (1, [2]),
        (1, [3]),
        (1, [4]),
        (1, []),
    ]


def test_ranks_that_fail_in_a_run_report_equally_often_whatever_they_have_left(tmp_path):
    def reports(told):
        sent: list[dict[str, Any]] = []
        reporter = Reporter(send=sent.append)
        reporter.begin(0, unsent=UnsentRecords(tmp_path, rank=0))
        for record in told:
            reporter.put(record)
        reporter.close()
        return len(sent)

    assert reports([records.sample(step=2)]) == reports([])


def test_the_end_of_a_run_can_be_waited_for():
    delivered = Event()

    def send(_report):
        time.sleep(0.1)
        delivered.set()

    reporter = Reporter(send=send)
    reporter.begin(0)
    reporter.end(wait=True)
    assert delivered.is_set()


def test_a_run_s_records_are_kept_with_the_run_until_they_are_sent(tmp_path):
    forever = Event()

    def send(_report):
        forever.wait()

    reporter = Reporter(send=send)
    for run in (0, 1):
        reporter.begin(run, unsent=UnsentRecords(tmp_path / str(run), rank=0))
        reporter.put(records.sample(step=run + 1))
        reporter.end(wait=False)
    kept = [list(unsent_records(tmp_path / run)) for run in ("0", "1")]
    forever.set()
    reporter.close()
    assert kept == [[records.sample(step=1)], [records.sample(step=2)]]
