"""What ranks have told and the run's spool may not have yet, in files that outlive the ranks.

A report waits for all ranks, so when one is lost nobody can report any more. Each rank therefore
also keeps its records in a file for each report, beside its log, where ranks and driver share a
disk; after a run that ended early the driver takes over what the spool lacks.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from orchestrator.measure.sample import EvalResult, RankDone, Record
from orchestrator.track.spool import SpoolWriter, records_in

N_KEPT = 2
"""Newest of the sent reports whose files stay: the controller may not have fetched them yet.

Source: ray 2.60.0, train/v2/_internal/execution/worker_group/worker.py: a sent report waits in a
queue of one for the controller's next poll. When a third is in it, the poll that fetched the first
has been answered."""
_FILES = "rank_*.unsent-*.jsonl"

log = logging.getLogger(__name__)


class UnsentRecords:
    """One rank's files; one thread tells and ends reports, another may say that they are sent."""

    def __init__(self, folder: Path, *, rank: int) -> None:
        """Begin the first report; nothing is written yet."""
        self._folder = folder
        self._rank = rank
        self._n_ended = 0
        self._n_sent = 0
        self._file: SpoolWriter | None = None
        self._failed = False

    def append(self, record: Record) -> None:
        """Keep a record, in microseconds; a disk that is full is told once and ends nothing."""
        if self._failed:
            return
        try:
            if self._file is None:
                self._file = SpoolWriter(self._path(self._n_ended), sync=False)
            self._file.append(record)
        except OSError as err:
            self._failed = True
            log.warning("records are not kept until they are sent: %s", err)

    def end_report(self) -> None:
        """Say that what was told since the last report is one report, which is about to be sent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._n_ended += 1

    def reported(self) -> None:
        """Say that the oldest report that was not sent is sent now."""
        if self._n_sent >= N_KEPT:
            self._path(self._n_sent - N_KEPT).unlink(missing_ok=True)
        self._n_sent += 1

    def _path(self, number: int) -> Path:
        return self._folder / f"rank_{self._rank:02d}.unsent-{number:08d}.jsonl"


def unsent_records(folder: Path) -> Iterator[Record]:
    """Every rank's records that lie in a folder, each rank's in order; the spool may have some.

    Raises:
        OSError: a file cannot be read.
    """
    for path in sorted(folder.glob(_FILES)):
        yield from records_in(path)


def take_over_unsent(folder: Path, *, spool_path: Path) -> None:
    """Append to a spool what lies in a folder and the spool lacks, and remove the files.

    Args:
        folder: where the ranks kept their records; they are no longer running.
        spool_path: nobody else writes to it any more.
    """
    try:
        lacking = {_identity(record): record for record in unsent_records(folder)}
        if lacking:
            for record in records_in(spool_path):
                lacking.pop(_identity(record), None)
            with SpoolWriter(spool_path) as spool:
                for record in sorted(lacking.values(), key=in_time):
                    spool.append(record)
        forget_unsent(folder)
    except OSError as err:
        log.warning("what ranks told last stays in %s: %s", folder, err)


def forget_unsent(folder: Path) -> None:
    """Remove the files of a run whose spool has everything."""
    for path in folder.glob(_FILES):
        path.unlink(missing_ok=True)


def in_time(record: Record) -> tuple[bool, int, bool]:
    """Sort key: step by step over all ranks, as it happened, where each rank's are in order."""
    step = getattr(record, "step", None) or 0
    return isinstance(record, RankDone), step, isinstance(record, EvalResult)


def _identity(record: Record) -> tuple[object, ...]:
    """What no two records of a run share."""
    return record.kind, *(getattr(record, name, None) for name in ("rank", "step", "number"))
