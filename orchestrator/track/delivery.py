"""Delivery: brings an outbox to a tracking store, as far as there is something to bring.

Goes on where the last delivery stopped, in this process or another. Memory is bounded by one read
of the spool, the samples that wait for a rank, and a point of every line.
"""

import logging
from dataclasses import replace

from orchestrator.measure.assembly import StepAssembler
from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import TrackedRun, Tracker
from orchestrator.track.outbox import Finish, Outbox
from orchestrator.track.spool import read_spool

MAX_POINTS = 1000
"""Points a call, the most that MLflow takes."""

log = logging.getLogger(__name__)


class Delivery:
    """One outbox on its way. Not for two threads at once."""

    def __init__(self, outbox: Outbox) -> None:
        """Read how far an earlier delivery came.

        Raises:
            OSError: the outbox cannot be read.
        """
        self._outbox = outbox
        self._delivered = outbox.delivered()
        self._assembler = StepAssembler()
        self._offset = 0
        # The points are the same whenever the spool is read, so what was delivered can be counted.
        self._to_skip = self._delivered.n_points
        self._ready: list[MetricPoint] = []
        self._last: list[MetricPoint] = []

    @property
    def run(self) -> TrackedRun | None:
        """Where the run lies; `None` until the store has it."""
        return self._delivered.run

    @property
    def done(self) -> bool:
        """Whether everything is delivered and the run is closed."""
        return self._delivered.finished

    def read(self) -> bool:
        """Read on in the spool, unless there are points enough for a call.

        Returns:
            Whether points are ready to be sent.

        Raises:
            OSError: the spool cannot be read.
        """
        while len(self._ready) < MAX_POINTS and self._read_part():
            pass
        return bool(self._ready)

    def begin(self, tracker: Tracker) -> None:
        """Start the run in the store, unless it is there and has not ended.

        Raises:
            TrackingUnavailableError: the store is away; call again.
            TrackingRefusedError: the store does not want it.
            OSError: the outbox cannot be read or written.
        """
        if self._delivered.run is None or self._delivered.goes_on:
            self._note(run=tracker.start(self._outbox.start()), goes_on=False)

    def send(self, tracker: Tracker) -> None:
        """Send all there is at this moment, and the end if the run has ended.

        Raises:
            TrackingUnavailableError: the store is away; what it has got is noted, call again.
            TrackingRefusedError: the store does not want it.
            OSError: the outbox cannot be read or written.
        """
        # Looked at first: what is written before the finish is then surely seen below.
        finish = self._outbox.finished()
        self.begin(tracker)
        self._send_files(tracker)
        while self.read():
            self._send_ready(tracker)
        if finish is not None and not self.done:
            self._send_finish(tracker, finish)

    def count_unsent(self) -> int:
        """Count the points that the store has not got, reading the rest of the spool.

        The delivery cannot be used afterwards.

        Raises:
            OSError: the outbox cannot be read.
        """
        if self.done:
            return 0
        n_unsent = 0
        while self.read():
            n_unsent += len(self._ready)
            self._ready.clear()
        finish = self._outbox.finished()
        n_last = len(finish.points) if finish else 0
        return n_unsent + len(self._assembler.flush()) + n_last

    def _read_part(self) -> bool:
        part = read_spool(self._outbox.spool_path, self._offset)
        if part.n_corrupt:
            log.warning("%d damaged lines left out of %s", part.n_corrupt, self._outbox.spool_path)
        moved = part.offset > self._offset
        self._offset = part.offset
        for record in part.records:
            points = self._assembler.add(record)
            n_skipped = min(self._to_skip, len(points))
            self._to_skip -= n_skipped
            self._ready += points[n_skipped:]
        return moved

    def _send_ready(self, tracker: Tracker) -> None:
        run = self._run()
        while self._ready:
            points = self._ready[:MAX_POINTS]
            tracker.log_points(run, points)
            del self._ready[:MAX_POINTS]
            self._note(n_points=self._delivered.n_points + len(points))

    def _send_files(self, tracker: Tracker) -> None:
        for name, version in self._outbox.files().items():
            if self._delivered.files.get(name) != version:
                tracker.log_file(self._run(), self._outbox.artifacts / name, name=name)
                self._note(files={**self._delivered.files, name: version})

    def _send_finish(self, tracker: Tracker, finish: Finish) -> None:
        run = self._run()
        # Kept, since a second try after an outage finds the assembler empty.
        self._last = self._last or [*self._assembler.flush(), *finish.points]
        for start in range(0, len(self._last), MAX_POINTS):
            tracker.log_points(run, self._last[start : start + MAX_POINTS])
        tracker.finish(run, status=finish.status, end_time_ms=finish.end_time_ms)
        self._note(finished=True)
        if self._assembler.n_dropped:
            log.warning("%d values were not finite and not sent", self._assembler.n_dropped)

    def _run(self) -> TrackedRun:
        assert self._delivered.run is not None
        return self._delivered.run

    def _note(self, **changes: object) -> None:
        self._delivered = replace(self._delivered, **changes)  # type: ignore[arg-type]
        self._outbox.note_delivered(self._delivered)
