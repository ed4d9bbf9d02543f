"""The spool: every record of a run as one line of a file that only grows.

A line is the CRC32 of its JSON in eight hex digits, a space, the JSON and a newline, written in one
call. Written by the controller, read by the driver while it grows. A writer that dies leaves at
most one torn line.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from zlib import crc32

from orchestrator.measure.sample import Record
from orchestrator.measure.sample_json import record_from_json, to_json

SYNC_S = 1.0
"""Longest that a line may wait for the disk: what a machine that loses power can lose."""


class SpoolWriter:
    """Appends records to a spool file; one writer at a time."""

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """Open the file, creating it and its folder.

        Args:
            path: the spool.
            sync: bring lines to the disk, which takes milliseconds; without it they outlive this
                process and not the machine.

        Raises:
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        self._sync_lines = sync
        self._synced_s = time.monotonic()
        self._torn = self._ends_torn()

    def append(self, record: Record) -> None:
        """Write one record.

        Raises:
            OSError: the disk is full or gone.
        """
        # A torn line is ended first, else this record would become a part of it.
        line = b"\n" * self._torn + _line(record)
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "the line was not written whole", self._file.name)
        self._torn = False
        if self._sync_lines and time.monotonic() - self._synced_s >= SYNC_S:
            self._sync()

    def close(self) -> None:
        """Bring everything to the disk, unless that was not wanted."""
        if not self._file.closed:
            if self._sync_lines:
                self._sync()
            self._file.close()

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_s = time.monotonic()

    def _ends_torn(self) -> bool:
        if self._file.seek(0, os.SEEK_END) == 0:
            return False
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) != b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolPart:
    """What was read of a spool."""

    records: tuple[Record, ...]
    offset: int
    """Where to read on, in bytes from the start."""
    n_corrupt: int
    """Lines whose checksum or content is wrong; skipped."""


def read_spool(path: Path, offset: int, *, max_bytes: int = 2**20) -> SpoolPart:
    """Read the records from `offset` on.

    Args:
        path: the spool; a file that is not there yet is an empty one.
        offset: bytes from the start, 0 or what an earlier read returned.
        max_bytes: stop after the line that reaches so many bytes.

    Returns:
        The records up to the last whole line; a torn last line stays for the next read. The end is
        reached when the offset does not move.

    Raises:
        OSError: the file cannot be read.
    """
    records: list[Record] = []
    n_corrupt = 0
    end = offset
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return SpoolPart(records=(), offset=offset, n_corrupt=0)
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                records.append(_record(line))
            except ValueError:
                # Ending a torn line leaves an empty one where nothing of it had been written.
                n_corrupt += line != b"\n"
            if end - offset >= max_bytes:
                break
    return SpoolPart(records=tuple(records), offset=end, n_corrupt=n_corrupt)


def records_in(path: Path) -> Iterator[Record]:
    """All records of a spool, in bounded memory.

    Raises:
        OSError: the file cannot be read.
    """
    offset, part = -1, read_spool(path, 0)
    while part.offset != offset:
        yield from part.records
        offset = part.offset
        part = read_spool(path, offset)


def _line(record: Record) -> bytes:
    body = json.dumps(to_json(record), separators=(",", ":")).encode()
    return b"%08x %b\n" % (crc32(body), body)


def _record(line: bytes) -> Record:
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % crc32(body):
        raise ValueError("the checksum does not fit the line")
    values = json.loads(body)
    if not isinstance(values, dict):
        raise ValueError("a record is an object")
    return record_from_json(values)
