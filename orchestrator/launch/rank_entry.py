"""What Ray Train calls on every rank: train, and report in the background.

`ray.train.report` waits for all ranks and for the controller, up to its polling interval. So a
thread does it, and training goes on. Every rank must report equally often, so they agree once on
the time of a step and from then on count steps.
"""

import logging
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train

from orchestrator.launch.failure import Cause, RankError, RankRaisedError, cause_of
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.measure.sample import RankSample, Record, to_json
from orchestrator.plan.launch_plan import LaunchPlan

REPORT_EVERY_S = 2.0
LET_PEER_SPEAK_S = 3.0
"""More than the controller's polling interval, 2 s unless it is told otherwise."""
LAST_WORDS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTask:
    """What every rank is told to do."""

    plan: LaunchPlan
    log_folder: Path | None
    """Where the rank's output goes; `None` leaves it with Ray."""
    unsent_folder: Path | None
    """Where its records lie until they are reported; `None` where the driver cannot see it."""
    collective_timeout_s: float


def train_on_rank(config: dict[str, Any]) -> None:
    """Train this rank's share. Ray Train calls it with the `RankTask` under `task`."""
    from orchestrator.worker.loop import DivergedError
    from orchestrator.worker.rank import Place, run_rank, this_node

    task: RankTask = config["task"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    # Ray Train writes every report out in full.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if task.log_folder is not None:
        _send_output_to(task.log_folder / f"rank_{rank:02d}.log")
    place = Place(
        rank=rank,
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        node=this_node(),
        master_address=os.environ["MASTER_ADDR"],
        master_port=int(os.environ["MASTER_PORT"]),
        entered_unix_s=float(os.environ["ORCHESTRATOR_ENTERED_UNIX_S"]),
    )
    unsent = None if task.unsent_folder is None else UnsentRecords(task.unsent_folder, rank=rank)
    reporter = Reporter(send=ray.train.report, unsent=unsent)
    last_step = 0

    def put(record: Record) -> None:
        nonlocal last_step
        reporter.put(record)
        if isinstance(record, RankSample):
            last_step = record.step

    try:
        run_rank(task.plan, place, put=put, pace=reporter.pace, timeout_s=task.collective_timeout_s)
    except (Exception, SystemExit) as err:
        error = RankError(
            rank=rank,
            kind=type(err).__name__,
            message=str(err),
            traceback=traceback.format_exc(),
            step=last_step or None,
        )
        if isinstance(err, DivergedError):
            # The ranks end in the same step, so what led there can still be told together.
            reporter.close(timeout_s=LAST_WORDS_S)
        elif cause_of(error) is Cause.LOST_PEER:
            # The controller ends the run at the first errors it sees; that of the rank that was
            # lost tells more.
            time.sleep(LET_PEER_SPEAK_S)
        raise RankRaisedError(error) from err
    reporter.close()


class Reporter:
    """Collects a rank's records and sends them in the background, at steps all ranks agree on.

    Args:
        send: sends a report; waits for the other ranks.
        unsent: keeps what is not sent yet from getting lost with the rank.
    """

    def __init__(
        self, *, send: Callable[[dict[str, Any]], None], unsent: UnsentRecords | None = None
    ) -> None:
        self._send = send
        self._unsent = unsent
        self._waiting: list[Record] = []
        self._queue: queue.SimpleQueue[list[Record] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()
        self._every_steps: int | None = None

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
        if isinstance(record, RankSample) and (
            record.step == 1 or (self._every_steps and record.step % self._every_steps == 0)
        ):
            self._flush()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Send what is left and wait until it is delivered, or until the time is up."""
        self._flush()
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        self._queue.put(self._waiting)
        self._waiting = []
        if self._unsent is not None:
            self._unsent.end_report()

    def _work(self) -> None:
        while (records := self._queue.get()) is not None:
            try:
                self._send({"records": [to_json(record) for record in records]})
            except Exception as err:  # noqa: BLE001
                # The outermost frame of this thread: `put` and `close` raise it in the rank's own.
                self._error = err
                return
            if self._unsent is not None:
                self._unsent.reported()


def report_every(step_s: float) -> int:
    """Steps between two reports, about `REPORT_EVERY_S` apart, at most 10,000.

    Args:
        step_s: seconds of one step, the same number on every rank.
    """
    return min(max(1, math.ceil(REPORT_EVERY_S / max(step_s, 1e-6))), 10_000)


def _send_output_to(path: Path) -> None:
    """Everything this process writes, C++ included, goes to a file from here on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.write(2, f"rank process {os.getpid()} at {time.strftime('%H:%M:%S')}\n".encode())
