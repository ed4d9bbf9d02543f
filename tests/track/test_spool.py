import math

from orchestrator.measure.sample import RankSample
from orchestrator.track.spool import SpoolWriter, read_spool


def write(path, records):
    with SpoolWriter(path) as spool:
        for record in records:
            spool.append(record)


def test_what_was_written_is_read_back_in_order(tmp_path, run_records):
    path = tmp_path / "deep" / "records.jsonl"
    write(path, run_records(5))
    part = read_spool(path, 0)
    assert list(part.records) == run_records(5)
    assert part.n_corrupt == 0
    assert part.offset == path.stat().st_size


def test_reading_goes_on_where_it_stopped(tmp_path, run_records):
    path = tmp_path / "records.jsonl"
    records = run_records(5)
    write(path, records[:4])
    first = read_spool(path, 0)
    write(path, records[4:])
    second = read_spool(path, first.offset)
    assert [*first.records, *second.records] == records
    assert read_spool(path, second.offset).records == ()


def test_a_large_spool_is_read_in_parts(tmp_path, run_records):
    path = tmp_path / "records.jsonl"
    write(path, run_records(20))
    offset, parts = 0, []
    while (part := read_spool(path, offset, max_bytes=1000)).offset > offset:
        offset = part.offset
        parts.append(part.records)
    assert len(parts) > 5
    assert [record for part in parts for record in part] == run_records(20)


def test_a_spool_that_is_not_there_yet_is_empty(tmp_path):
    part = read_spool(tmp_path / "records.jsonl", 0)
    assert (part.records, part.offset) == ((), 0)


def test_a_torn_last_line_waits_until_it_is_whole(tmp_path, run_records):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    write(whole, run_records(1))
    data = whole.read_bytes()
    for length in range(len(data)):
        torn.write_bytes(data[:length])
        part = read_spool(torn, 0)
        assert part.n_corrupt == 0
        assert len(part.records) == data[:length].count(b"\n")
    torn.write_bytes(data)
    assert list(read_spool(torn, part.offset).records) == run_records(1)[-1:]


def test_a_line_that_a_killed_writer_left_does_not_spoil_the_next(tmp_path, run_records):
    path = tmp_path / "records.jsonl"
    records = run_records(3)
    write(path, records[:2])
    path.write_bytes(path.read_bytes() + b'0badc0de {"kind": "sam')
    write(path, records[2:])
    part = read_spool(path, 0)
    assert list(part.records) == records
    assert part.n_corrupt == 1


def test_any_flipped_byte_costs_its_line_alone_and_is_counted(tmp_path, run_records):
    path = tmp_path / "records.jsonl"
    write(path, run_records(1))
    lines = path.read_bytes().splitlines(keepends=True)
    for at in range(len(lines[1]) - 1):
        damaged = bytearray(lines[1])
        damaged[at] ^= 1
        if b"\n" in damaged[:-1]:
            continue
        path.write_bytes(b"".join([lines[0], damaged, *lines[2:]]))
        part = read_spool(path, 0)
        assert part.n_corrupt == 1
        assert list(part.records) == [run_records(1)[0], *run_records(1)[2:]]


def test_a_line_of_another_version_is_skipped(tmp_path, run_records):
    path = tmp_path / "records.jsonl"
    # CRC32 of `[]` and of `{"kind": "new"}`, from zlib.
    path.write_bytes(b"e16dcdee []\n")
    write(path, run_records(1))
    part = read_spool(path, 0)
    assert part.n_corrupt == 1
    assert len(part.records) == 5


def test_a_loss_that_is_no_number_survives(tmp_path, sample):
    path = tmp_path / "records.jsonl"
    write(path, [sample(loss=math.nan, grad_norm=math.inf)])
    (record,) = read_spool(path, 0).records
    assert isinstance(record, RankSample)
    assert math.isnan(record.loss)
    assert record.grad_norm == math.inf
