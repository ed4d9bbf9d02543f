"""The writer: the one thread of the driver that brings a run's outbox to its tracking store.

It makes the tracker itself, since importing mlflow takes seconds of CPU, waits for the first points
before it does, and runs at the lowest priority, because the ranks may be training on the same
cores. Nothing that goes wrong in it reaches the run.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable

from orchestrator.track.base import TrackedRun, Tracker, TrackingRefusedError
from orchestrator.track.delivery import Delivery
from orchestrator.track.outbox import Outbox

MAX_BACK_OFF_S = 30.0
LOWEST_PRIORITY = 19

log = logging.getLogger(__name__)


class TrackingWriter:
    """Delivers while the run runs; `close` at the end."""

    def __init__(
        self, outbox: Outbox, *, open_tracker: Callable[[], Tracker], poll_s: float = 1.0
    ) -> None:
        """Prepare a writer.

        Args:
            outbox: what is to be delivered.
            open_tracker: makes the store's tracker; called in the thread, again after a failure.
            poll_s: seconds between two looks at the outbox.
        """
        self._outbox = outbox
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
        """Where the run lies; `None` until the store has it."""
        return self._outbox.delivered().run

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
        try:
            return Delivery(self._outbox).count_unsent()
        except OSError as err:
            log.warning("the unsent points of %s cannot be counted: %s", self._outbox.folder, err)
            return 0

    def _work(self) -> None:
        _lower_priority()
        tracker: Tracker | None = None
        delivery: Delivery | None = None
        n_failures = 0
        while not self._give_up.is_set():
            # Looked at before sending, so that what came before the close is surely sent.
            closing = self._closing.is_set()
            try:
                delivery = delivery or Delivery(self._outbox)
                if closing or delivery.read():
                    tracker = tracker or self._open_tracker()
                    delivery.send(tracker)
                self._recovered()
                n_failures = 0
            except TrackingRefusedError as err:
                self._failed(err, "and will not take it")
                return
            except Exception as err:  # noqa: BLE001
                # The outermost frame of this thread: whatever tracking does, the run goes on.
                self._failed(err, "and is tried again")
                n_failures += 1
                self._pause(min(MAX_BACK_OFF_S, 2.0 ** (n_failures - 1)), closing=closing)
                continue
            if closing:
                return
            self._pause(self._poll_s, closing=False)

    def _pause(self, seconds: float, *, closing: bool) -> None:
        # While the run runs, its end cuts the pause short; then only giving up does.
        (self._give_up if closing else self._closing).wait(seconds)

    def _failed(self, err: Exception, then: str) -> None:
        if self._last_error is None:
            log.warning(
                "tracking fails %s; records are kept in %s: %s", then, self._outbox.folder, err
            )
        self._last_error = f"{type(err).__name__}: {err}"

    def _recovered(self) -> None:
        if self._last_error is not None:
            log.info("tracking is back")
        self._last_error = None


def _lower_priority() -> None:
    # Linux gives every thread its own; elsewhere it is the whole process's.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
