"""The driver's ear: a thread that reads a run's spool while it grows and hands on every record."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.measure.sample import Record
from orchestrator.track.spool import read_spool

POLL_S = 0.2

log = logging.getLogger(__name__)


class Follower:
    """Follows one spool; `stop` returns after its last record was handed on."""

    def __init__(self, spool_path: Path, *, hand_on: Callable[[Record], None]) -> None:
        self._spool_path = spool_path
        self._hand_on = hand_on
        self._offset = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="spool-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Read to the end and stop."""
        self._stopping.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._read()
        self._read()

    def _read(self) -> None:
        while True:
            part = read_spool(self._spool_path, self._offset)
            if part.n_corrupt:
                log.warning("%d damaged lines in %s", part.n_corrupt, self._spool_path)
            for record in part.records:
                self._hand_on(record)
            if part.offset == self._offset:
                return
            self._offset = part.offset
