import time
from collections.abc import Callable

import pytest

from orchestrator.launch.follow import Follower
from orchestrator.measure.sample import EvalResult
from orchestrator.track.spool import SpoolWriter
from tests.launch import records


def evaluation(step: int) -> EvalResult:
    return EvalResult(step=step, time_unix_s=1.0, loss=0.5, accuracy=None, n_samples=4, seconds=0.1)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline, "nothing happened for 5 s"
        time.sleep(0.01)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def follower(tmp_path, heard):
    follower = Follower(
        [tmp_path / "records.jsonl"], hand_on=lambda _number, record: heard.append(record)
    )
    follower.start()
    return follower


def test_records_are_handed_on_while_the_file_grows(follower, heard, tmp_path):
    with SpoolWriter(tmp_path / "records.jsonl") as spool:
        spool.append(evaluation(1))
        wait_until(lambda: len(heard) == 1)
        spool.append(evaluation(2))
        wait_until(lambda: len(heard) == 2)
    follower.stop()
    assert [record.step for record in heard] == [1, 2]


def test_stopping_hands_on_everything_that_was_written(follower, heard, tmp_path):
    with SpoolWriter(tmp_path / "records.jsonl") as spool:
        # More than one read takes.
        for step in range(1, 20_001):
            spool.append(evaluation(step))
    follower.stop()
    assert [record.step for record in heard] == list(range(1, 20_001))


def test_a_run_that_never_wrote_is_followed_to_its_end(follower, heard):
    follower.stop()
    assert heard == []


def test_a_damaged_line_is_told_and_the_next_is_read(follower, heard, tmp_path, caplog):
    path = tmp_path / "records.jsonl"
    with SpoolWriter(path) as spool:
        spool.append(evaluation(1))
        with path.open("ab") as file:
            file.write(b"00000000 {}\n")
        spool.append(evaluation(2))
    follower.stop()
    assert [record.step for record in heard] == [1, 2]
    assert [r.getMessage() for r in caplog.records] == [f"1 damaged lines in {path}"]


def test_the_next_run_of_a_group_is_read_once_every_rank_is_done_with_the_one_before(tmp_path):
    heard = []
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    follower = Follower(paths, hand_on=lambda number, record: heard.append((number, record.kind)))
    follower.start()
    with SpoolWriter(paths[0]) as first, SpoolWriter(paths[1]) as second:
        for rank in (0, 1):
            first.append(records.facts(rank))
        first.append(records.done(0))
        second.append(evaluation(1))
        wait_until(lambda: len(heard) == 3)
        assert follower.n_done == 0
        first.append(records.done(1))
        wait_until(lambda: len(heard) == 5)
    follower.stop()
    assert heard == [(0, "facts"), (0, "facts"), (0, "done"), (0, "done"), (1, "eval")]
    assert follower.n_done == 1


def test_silence_is_counted_from_the_last_record(follower, tmp_path):
    time.sleep(0.3)
    assert follower.silent_s >= 0.3
    with SpoolWriter(tmp_path / "records.jsonl") as spool:
        spool.append(evaluation(1))
    wait_until(lambda: follower.silent_s < 0.3)
    follower.stop()
