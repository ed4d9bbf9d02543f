"""The writer: the one thread of the driver that brings outboxes to their tracking store.

It makes the tracker itself, since importing mlflow takes seconds of CPU, waits for the first points
before it does, and runs at the lowest priority, because the ranks may be training on the same
cores. Nothing that goes wrong in it reaches the run.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.track.base import (
    TrackedRun,
    Tracker,
    TrackingRefusedError,
    TrackingUnavailableError,
)
from orchestrator.track.delivery import Delivery
from orchestrator.track.outbox import Outbox

MAX_BACK_OFF_S = 30.0
LOWEST_PRIORITY = 19

log = logging.getLogger(__name__)


class TrackingWriter:
    """Delivers while runs run; `close` at the end.

    Runs are begun in the store in the order in which they came here, and ended the other way round,
    so that a comparison is there before its strategies and is closed after them.
    """

    def __init__(
        self, outbox: Outbox, *, open_tracker: Callable[[], Tracker], poll_s: float = 1.0
    ) -> None:
        """Prepare a writer.

        Args:
            outbox: what is to be delivered; more can be added.
            open_tracker: makes the store's tracker; called in the thread, again after a failure.
            poll_s: seconds between two looks at the outbox.
        """
        self._outbox = outbox
        self._outboxes = [outbox]
        self._deliveries: dict[Path, Delivery] = {}
        self._refused: set[Path] = set()
        self._open_tracker = open_tracker
        self._poll_s = poll_s
        self._closing = threading.Event()
        self._give_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking-writer", daemon=True)
        self._last_error: str | None = None

    @property
    def last_error(self) -> str | None:
        """Why the store has not got everything; `None` while all goes well."""
        return self._last_error

    @property
    def run(self) -> TrackedRun | None:
        """Where the first outbox's run lies; `None` until the store has it."""
        return self._outbox.delivered().run

    def add(self, outbox: Outbox) -> None:
        """Deliver one more, after those that are here; may be called while the thread runs."""
        self._outboxes.append(outbox)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, *, timeout_s: float) -> int:
        """Deliver what is left and stop.

        Args:
            timeout_s: longest to wait; a store that is away is tried until then.

        Returns:
            Points that the store has not got. They stay in the outbox.
        """
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._give_up.set()
        return sum(map(_count_unsent, self._outboxes))

    def _work(self) -> None:
        _lower_priority()
        tracker: Tracker | None = None
        n_failures = 0
        while not self._give_up.is_set():
            # Looked at before sending, so that what came before the close is surely sent.
            closing = self._closing.is_set()
            try:
                deliveries = [self._delivery(outbox) for outbox in list(self._outboxes)]
                if closing or any(delivery.read() for delivery in deliveries if delivery):
                    tracker = tracker or self._open_tracker()
                    self._send(tracker)
                self._recovered()
                n_failures = 0
            except Exception as err:  # noqa: BLE001
                # The outermost frame of this thread: whatever tracking does, the run goes on.
                self._failed(err)
                n_failures += 1
                self._pause(min(MAX_BACK_OFF_S, 2.0 ** (n_failures - 1)), closing=closing)
                continue
            if closing:
                return
            self._pause(self._poll_s, closing=False)

    def _send(self, tracker: Tracker) -> None:
        outboxes = list(self._outboxes)
        begin = [(outbox, Delivery.begin) for outbox in outboxes]
        send = [(outbox, Delivery.send) for outbox in reversed(outboxes)]
        for outbox, do in [*begin, *send]:
            delivery = self._delivery(outbox)
            if delivery is None or self._give_up.is_set():
                continue
            try:
                do(delivery, tracker)
            except TrackingRefusedError as err:
                self._refuse(outbox, err)
            except TrackingUnavailableError as err:
                if not self._waits_in_vain(outbox):
                    raise
                self._refuse(outbox, err)

    def _refuse(self, outbox: Outbox, err: Exception) -> None:
        self._refused.add(outbox.folder)
        log.warning("tracking does not take %s, which is kept: %s", outbox.folder, err)
        self._last_error = f"{type(err).__name__}: {err}"

    def _waits_in_vain(self, outbox: Outbox) -> bool:
        """Whether it is part of a run that the store has refused."""
        key = outbox.start().parent_key
        return key is not None and any(
            other.start().key == key and other.delivered().run is None
            for other in list(self._outboxes)
            if other.folder in self._refused
        )

    def _delivery(self, outbox: Outbox) -> Delivery | None:
        """The delivery of an outbox; `None` once the store has refused it."""
        if outbox.folder in self._refused:
            return None
        if outbox.folder not in self._deliveries:
            self._deliveries[outbox.folder] = Delivery(outbox)
        return self._deliveries[outbox.folder]

    def _pause(self, seconds: float, *, closing: bool) -> None:
        # While the run runs, its end cuts the pause short; then only giving up does.
        (self._give_up if closing else self._closing).wait(seconds)

    def _failed(self, err: Exception) -> None:
        if self._last_error is None:
            kept = self._outbox.folder
            log.warning("tracking fails and is tried again; records are kept in %s: %s", kept, err)
        self._last_error = f"{type(err).__name__}: {err}"

    def _recovered(self) -> None:
        if self._refused:
            return
        if self._last_error is not None:
            log.info("tracking is back")
        self._last_error = None


def _count_unsent(outbox: Outbox) -> int:
    try:
        return Delivery(outbox).count_unsent()
    except OSError as err:
        log.warning("the unsent points of %s cannot be counted: %s", outbox.folder, err)
        return 0


def _lower_priority() -> None:
    # Linux gives every thread its own; elsewhere it is the whole process's.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
