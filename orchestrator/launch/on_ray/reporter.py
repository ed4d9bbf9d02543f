"""A rank's reports: its records, sent in the background, at steps that all ranks agree on.

Every rank must report equally often, so they agree once a run on the time of a step and from then
on count steps.
"""

import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.launch.unsent import UnsentRecords
from orchestrator.measure.sample import RankSample, Record
from orchestrator.measure.sample_json import to_json

REPORT_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    run: int
    records: tuple[Record, ...]
    unsent: UnsentRecords | None
    sent: threading.Event


class Reporter:
    """Collects a rank's records, run after run, and sends them.

    Args:
        send: sends a report; waits for the other ranks.
    """

    def __init__(self, *, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._run = 0
        self._unsent: UnsentRecords | None = None
        self._waiting: list[Record] = []
        self._queue: queue.SimpleQueue[_Report | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()
        self._every_steps: int | None = None
        # All ranks must know it alike: what waits may differ.
        self._under_way = True

    def begin(self, run: int, *, unsent: UnsentRecords | None = None) -> None:
        """Begin a run.

        Args:
            run: its number in the group, from 0.
            unsent: keeps what is not sent yet from getting lost with the rank.
        """
        self._run, self._unsent, self._every_steps = run, unsent, None
        self._under_way = True

    def pace(self, step_s: float) -> None:
        """Learn how long a step takes, a number that all ranks share, and how often to report."""
        self._every_steps = report_every(step_s)

    def put(self, record: Record) -> None:
        """Take a record; after the first step, and then every so often, all collected are sent."""
        if self._error is not None:
            raise self._error
        self._waiting.append(record)
        if self._unsent is not None:
            self._unsent.append(record)
        if isinstance(record, RankSample) and self._is_due(record.step):
            self._flush()

    def end(self, *, wait: bool) -> None:
        """End a run: send what is left.

        Args:
            wait: until it is delivered; else that goes on beside the next run.
        """
        self._under_way = False
        sent = self._flush()
        while wait and not sent.wait(0.1):
            if self._error is not None:
                raise self._error

    def close(self, *, timeout_s: float | None = None) -> None:
        """Send what is left and wait until it is delivered, or until the time is up."""
        if self._under_way:
            self._flush()
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error

    def _is_due(self, step: int) -> bool:
        if step == 1:
            return True
        if self._every_steps is None:
            # Where nothing else tells that slow ranks go on, every step does.
            return self._unsent is None
        return step % self._every_steps == 0

    def _flush(self) -> threading.Event:
        report = _Report(
            run=self._run,
            records=tuple(self._waiting),
            unsent=self._unsent,
            sent=threading.Event(),
        )
        self._queue.put(report)
        self._waiting = []
        if self._unsent is not None:
            self._unsent.end_report()
        return report.sent

    def _work(self) -> None:
        while (report := self._queue.get()) is not None:
            records = [to_json(record) for record in report.records]
            try:
                self._send({"run": report.run, "records": records})
            except Exception as err:  # noqa: BLE001
                # The outermost frame of this thread: the rank's own raises it.
                self._error = err
                return
            if report.unsent is not None:
                report.unsent.reported()
            report.sent.set()


def report_every(step_s: float) -> int:
    """Steps between two reports, about `REPORT_EVERY_S` apart, at most 10,000.

    Args:
        step_s: seconds of one step, the same number on every rank.
    """
    return min(max(1, math.ceil(REPORT_EVERY_S / max(step_s, 1e-6))), 10_000)
