"""The driver's ear: a thread that reads spools while they grow and hands on every record.

A group of ranks runs one plan after another, each with a spool of its own: the next one is read
once every rank has said that it is done with the one before.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.measure.sample import RankDone, RankFacts, Record
from orchestrator.track.spool import read_spool

POLL_S = 0.2

log = logging.getLogger(__name__)


class Follower:
    """Follows spools; `stop` returns after the last record was handed on.

    An error in its thread ends the following; `stop` raises it.

    Args:
        spool_paths: in the order in which they are written.
        hand_on: takes the number of the spool, from 0, and a record.
        on_whole: told the number of a spool that every rank is done with.
    """

    def __init__(
        self,
        spool_paths: Sequence[Path],
        *,
        hand_on: Callable[[int, Record], None],
        on_whole: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._spool_paths = tuple(spool_paths)
        self._hand_on = hand_on
        self._on_whole = on_whole
        self.has_heard = False
        self.error: Exception | None = None
        """What ended the following early."""
        self._number = 0
        self._offset = 0
        self._world_size: int | None = None
        self._done: set[int] = set()
        self._heard_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="spool-follower", daemon=True)

    @property
    def n_done(self) -> int:
        """How many spools are whole: every rank is done with them."""
        return self._number

    @property
    def silent_s(self) -> float:
        """Seconds since anything was heard."""
        return time.monotonic() - self._heard_s

    def start(self) -> None:
        """Begin to follow."""
        self._heard_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Read to the end and stop.

        Raises:
            Exception: a spool could not be read, or a function that was told something raised it.
        """
        self._stopping.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _follow(self) -> None:
        try:
            while not self._stopping.wait(POLL_S):
                self._read()
            self._read()
        except Exception as err:  # noqa: BLE001
            # The outermost frame of this thread: whoever stops it hears of it.
            self.error = err

    def _read(self) -> None:
        while self._number < len(self._spool_paths):
            path = self._spool_paths[self._number]
            part = read_spool(path, self._offset)
            if part.n_corrupt:
                log.warning("%d damaged lines in %s", part.n_corrupt, path)
            if part.records:
                self._heard_s, self.has_heard = time.monotonic(), True
            for record in part.records:
                self._hand_on(self._number, record)
                self._note(record)
            if part.offset == self._offset:
                if not self._is_whole():
                    return
                self._on_whole(self._number)
                self._number += 1
                self._offset, self._world_size = 0, None
                self._done.clear()
            else:
                self._offset = part.offset

    def _note(self, record: Record) -> None:
        if isinstance(record, RankFacts):
            self._world_size = record.world_size
        elif isinstance(record, RankDone):
            self._done.add(record.rank)

    def _is_whole(self) -> bool:
        return self._world_size is not None and len(self._done) >= self._world_size
