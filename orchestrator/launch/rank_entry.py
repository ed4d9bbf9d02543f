"""What Ray Train calls on every rank: train, and report in the background.

`ray.train.report` waits for all ranks and for the controller, up to its polling interval. So a
thread does it, and training goes on; the ranks agree on the steps to report at without talking.
"""

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train

from orchestrator.measure.sample import RankFacts, RankSample, Record, to_json
from orchestrator.plan.launch_plan import LaunchPlan

REPORT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTask:
    """What every rank is told to do."""

    plan: LaunchPlan
    log_folder: Path | None
    """Where the rank's output goes; `None` leaves it with Ray."""
    collective_timeout_s: float


def train_on_rank(config: dict[str, Any]) -> None:
    """Train this rank's share. Ray Train calls it with the `RankTask` under `task`."""
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
    reporter = Reporter(send=ray.train.report)
    run_rank(task.plan, place, put=reporter.put, timeout_s=task.collective_timeout_s)
    reporter.close()


class Reporter:
    """Collects a rank's records and sends them in the background, at steps all ranks agree on."""

    def __init__(self, *, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._waiting: list[Record] = []
        self._queue: queue.SimpleQueue[list[Record] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()
        self._every_steps = 1
        self._total_steps = 0

    def put(self, record: Record) -> None:
        """Take a record; now and then everything collected is sent."""
        if self._error is not None:
            raise self._error
        if isinstance(record, RankFacts):
            self._total_steps = record.total_steps
        self._waiting.append(record)
        if isinstance(record, RankSample) and is_report_step(record.step, self._total_steps):
            self._flush()

    def close(self) -> None:
        """Send what is left and wait until it is delivered."""
        self._flush()
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _flush(self) -> None:
        self._queue.put(self._waiting)
        self._waiting = []

    def _work(self) -> None:
        while (records := self._queue.get()) is not None:
            try:
                self._send({"records": [to_json(record) for record in records]})
            except Exception as err:  # noqa: BLE001
                # The outermost frame of this thread: `put` and `close` raise it in the rank's own.
                self._error = err
                return


def is_report_step(step: int, total_steps: int) -> bool:
    """Whether all ranks report after this step: at first often, then at fifty points of the run.

    Pure, so that ranks agree without talking. A report is a barrier, so there must not be many.
    """
    every = min(max(1, total_steps // 50), 100)
    return step in (1, 2, 5) or step % every == 0


def _send_output_to(path: Path) -> None:
    """Everything this process writes, C++ included, goes to a file from here on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.write(2, f"rank process {os.getpid()} at {time.strftime('%H:%M:%S')}\n".encode())
