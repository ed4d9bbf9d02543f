"""The last step of a rank, in a file that outlives it.

Its records wait for the next report, and a rank that is killed never sends them. The file lies
beside the rank's log, where ranks and driver share a disk.
"""

import os
from pathlib import Path


class StepFile:
    """One rank's file; a step is noted in microseconds."""

    def __init__(self, log_folder: Path, *, rank: int) -> None:
        """Make the file.

        Raises:
            OSError: it cannot be written.
        """
        log_folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(_path(log_folder, rank), os.O_WRONLY | os.O_CREAT, 0o644)

    def note(self, step: int) -> None:
        """Note that a step is done."""
        os.pwrite(self._file, b"%020d" % step, 0)


def last_noted_step(log_folder: Path, *, rank: int) -> int | None:
    """The last step a rank noted; `None` if it noted none."""
    try:
        return int(_path(log_folder, rank).read_bytes())
    except (OSError, ValueError):
        return None


def _path(log_folder: Path, rank: int) -> Path:
    return log_folder / f"rank_{rank:02d}.step"
