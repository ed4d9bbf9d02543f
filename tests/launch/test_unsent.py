"""What a rank told before it was lost: kept on its disk, and taken over once and in order."""

import os
import signal
import subprocess
import sys

import pytest

from orchestrator.launch.unsent import (
    N_KEPT,
    UnsentRecords,
    forget_unsent,
    take_over_unsent,
    unsent_records,
)
from orchestrator.track.spool import SpoolWriter, records_in
from tests.launch import records

KILLED = """
import os, signal, sys
from pathlib import Path
from orchestrator.launch.unsent import UnsentRecords
from tests.launch import records
unsent = UnsentRecords(Path(sys.argv[1]), rank=0)
for step in (1, 2, 3):
    unsent.append(records.sample(step=step))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def spool_path(tmp_path):
    return tmp_path / "records.jsonl"


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "logs"


def write(path, told):
    with SpoolWriter(path) as spool:
        for record in told:
            spool.append(record)


def tell(folder, told, *, rank=0):
    unsent = UnsentRecords(folder, rank=rank)
    for record in told:
        unsent.append(record)
    unsent.end_report()
    return unsent


def samples(rank, steps):
    return [records.sample(rank, step=step) for step in steps]


def test_what_was_told_outlives_a_rank_that_is_killed(logs):
    done = subprocess.run([sys.executable, "-c", KILLED, str(logs)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(unsent_records(logs)) == samples(0, [1, 2, 3])


def test_a_rank_that_told_nothing_leaves_no_file(logs):
    tell(logs, []).reported()
    assert not logs.exists()


def test_a_report_stays_until_the_controller_has_surely_fetched_it(logs):
    unsent = UnsentRecords(logs, rank=0)
    for step in range(1, 11):
        unsent.append(records.sample(step=step))
        unsent.end_report()
        unsent.reported()
        kept = list(unsent_records(logs))
        assert kept == samples(0, range(max(1, step - N_KEPT + 1), step + 1))


def test_what_is_told_while_a_report_is_on_its_way_is_not_removed_with_it(logs):
    unsent = tell(logs, samples(0, [1, 2]))
    unsent.append(records.sample(step=3))
    for _ in range(1 + N_KEPT):
        unsent.reported()
        unsent.end_report()
    assert list(unsent_records(logs)) == samples(0, [3])


def test_the_spool_gets_what_it_lacks_step_by_step_and_nothing_twice(logs, spool_path):
    had = [*map(records.facts, (0, 1)), *samples(0, [1, 2]), *samples(1, [1, 2])]
    write(spool_path, had)
    tell(logs, [records.facts(0), *samples(0, [2, 3, 4]), records.evaluation(4)], rank=0)
    tell(logs, samples(1, [2, 3]), rank=1)
    take_over_unsent(logs, spool_path=spool_path)
    lacked = [records.sample(0, step=3), records.sample(1, step=3), records.sample(0, step=4)]
    assert list(records_in(spool_path)) == [*had, *lacked, records.evaluation(4)]
    assert list(logs.iterdir()) == []


def test_more_than_one_read_of_the_spool_is_looked_through(logs, spool_path):
    # Parts of a megabyte are read at once; a sample is above half a kilobyte.
    had = samples(0, range(1, 4000))
    write(spool_path, had)
    assert spool_path.stat().st_size > 2**21
    tell(logs, samples(0, [3999, 4000]))
    take_over_unsent(logs, spool_path=spool_path)
    assert list(records_in(spool_path)) == samples(0, range(1, 4001))


def test_a_line_that_a_killed_rank_did_not_end_is_left_out(logs, spool_path):
    tell(logs, samples(1, [1, 2]), rank=1)
    (path,) = logs.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    take_over_unsent(logs, spool_path=spool_path)
    assert list(records_in(spool_path)) == samples(1, [1])


def test_a_run_whose_ranks_left_nothing_keeps_its_spool_as_it_is(logs, spool_path):
    write(spool_path, samples(0, [1]))
    before = spool_path.stat()
    take_over_unsent(logs, spool_path=spool_path)
    assert spool_path.stat() == before


def test_only_what_is_unsent_is_forgotten(logs):
    tell(logs, samples(0, [1]))
    (logs / "rank_00.log").write_text("words")
    forget_unsent(logs)
    assert [path.name for path in logs.iterdir()] == ["rank_00.log"]


def test_a_disk_that_is_gone_is_told_once_and_the_rank_goes_on(tmp_path, caplog):
    (tmp_path / "logs").write_text("a file")
    tell(tmp_path / "logs", samples(0, [1, 2]))
    assert len(caplog.records) == 1
    assert os.strerror(17) in caplog.text


def test_a_spool_that_cannot_be_written_leaves_the_files(logs, tmp_path, caplog):
    tell(logs, samples(0, [1]))
    (tmp_path / "file").write_text("a file")
    take_over_unsent(logs, spool_path=tmp_path / "file" / "records.jsonl")
    assert f"what ranks told last stays in {logs}" in caplog.text
    assert list(unsent_records(logs)) == samples(0, [1])
