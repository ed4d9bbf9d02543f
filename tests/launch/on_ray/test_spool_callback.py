"""What ranks report together is kept in the run's spool, and nothing of it can end the run."""

import pytest

from orchestrator.launch.on_ray.spool_callback import SpoolCallback
from orchestrator.measure.sample_json import to_json
from orchestrator.track.spool import read_spool
from tests.launch import records


def report(*told, run=0):
    return {"run": run, "records": [to_json(record) for record in told]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "records.jsonl"


def test_records_are_kept_as_they_happened_and_not_rank_by_rank(path):
    told = [
        [records.facts(rank), *(records.sample(rank, step=step) for step in (1, 2))]
        for rank in (0, 1)
    ]
    last = records.evaluation(2)
    SpoolCallback([path]).after_report(None, [report(*told[0], last), report(*told[1])], None)
    assert list(read_spool(path, 0).records) == [
        *(told[rank][0] for rank in (0, 1)),
        *(told[rank][1] for rank in (0, 1)),
        *(told[rank][2] for rank in (0, 1)),
        last,
    ]


def test_reports_follow_each_other(path):
    callback = SpoolCallback([path])
    told = [records.sample(step=step) for step in (1, 2)]
    for sample in told:
        callback.after_report(None, [report(sample)], None)
    assert list(read_spool(path, 0).records) == told


@pytest.mark.parametrize("metrics", [[], [{}], [{"records": []}]])
def test_a_report_without_records_is_none(path, metrics):
    SpoolCallback([path]).after_report(None, metrics, None)
    assert read_spool(path, 0).records == ()


def test_a_disk_that_is_gone_is_told_once_and_the_run_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("a file")
    callback = SpoolCallback([tmp_path / "file" / "records.jsonl"])
    for step in (1, 2):
        callback.after_report(None, [report(records.sample(step=step))], None)
    assert len(caplog.records) == 1
    assert "records cannot be kept in" in caplog.text


def test_a_record_that_makes_no_sense_does_not_end_the_run(path, caplog):
    SpoolCallback([path]).after_report(None, [{"run": 0, "records": [{"kind": "gossip"}]}], None)
    assert "unknown record kind 'gossip'" in caplog.text


def test_every_run_of_a_group_has_its_own_spool(tmp_path):
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    callback = SpoolCallback(paths)
    for run in (0, 1):
        told = [report(records.sample(rank, step=run + 1), run=run) for rank in (0, 1)]
        callback.after_report(None, told, None)
    for run, path in enumerate(paths):
        expected = tuple(records.sample(rank, step=run + 1) for rank in (0, 1))
        assert read_spool(path, 0).records == expected


def test_that_a_rank_is_done_comes_last(path):
    told = [report(records.sample(1, step=3), records.done(1)), report(records.sample(0, step=4))]
    SpoolCallback([path]).after_report(None, told, None)
    assert [r.kind for r in read_spool(path, 0).records] == ["sample", "sample", "done"]
