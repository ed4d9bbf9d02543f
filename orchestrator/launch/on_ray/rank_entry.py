"""What Ray Train calls on every rank: train one plan after another, and report.

`ray.train.report` waits for all ranks and for the controller, up to its polling interval. So a
thread does it (`reporter`), and training goes on.
"""

import contextlib
import logging
import os
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.collective

from orchestrator.launch.failure import Cause, RankError, RankRaisedError, cause_of
from orchestrator.launch.luggage import Luggage, at_hand
from orchestrator.launch.on_ray.node import NodeNeeds, check_package, compile_ops, node_name
from orchestrator.launch.on_ray.reporter import Reporter
from orchestrator.launch.unsent import UnsentRecords
from orchestrator.measure.sample import RankSample, Record
from orchestrator.plan.extent import Extent
from orchestrator.plan.launch_plan import LaunchPlan

LET_PEER_SPEAK_S = 3.0
"""More than the controller's polling interval, 2 s unless it is told otherwise."""
LAST_WORDS_S = 5.0

if TYPE_CHECKING:
    from orchestrator.worker.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTask:
    """One plan that every rank of a group is told to train."""

    plan: LaunchPlan
    extent: Extent
    log_folder: Path | None
    """Where the rank's output goes; `None` leaves it with Ray."""
    unsent_folder: Path | None
    """Where its records lie until they are reported; `None` where the driver cannot see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTask:
    """What every rank of a group is told to do, in this order."""

    tasks: tuple[RankTask, ...]
    luggage: Luggage | None
    """The user's own files; `None` where the ranks are on the driver's machine."""
    needs: NodeNeeds | None
    """Of every node; `None` where the driver has seen to it."""
    collective_timeout_s: float


def train_on_rank(config: dict[str, Any]) -> None:
    """Train this rank's share. Ray Train calls it with the `GroupTask` under `task`."""
    from orchestrator.worker.loop import DivergedError
    from orchestrator.worker.place import Place
    from orchestrator.worker.rank import Rank

    group: GroupTask = config["task"]
    context = ray.train.get_context()
    number = context.get_world_rank()
    # Ray Train writes every report out in full.
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    if group.tasks[0].log_folder is not None:
        _send_output_to(group.tasks[0].log_folder / f"rank_{number:02d}.log")
    place = Place(
        rank=number,
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        node=node_name(),
        master_address=os.environ["MASTER_ADDR"],
        master_port=int(os.environ["MASTER_PORT"]),
        entered_unix_s=float(os.environ["ORCHESTRATOR_ENTERED_UNIX_S"]),
    )
    reporter = Reporter(send=ray.train.report)
    last_step = 0

    def put(record: Record) -> None:
        nonlocal last_step
        reporter.put(record)
        if isinstance(record, RankSample):
            last_step = record.step

    try:
        first = group.tasks[0].plan
        with (
            _folder_of(group) as folder,
            Rank(first, place, timeout_s=group.collective_timeout_s) as rank,
        ):
            for index, task in enumerate(group.tasks):
                last_step = 0
                if index:
                    rank.clear()
                    if task.log_folder is not None:
                        _send_output_to(task.log_folder / f"rank_{number:02d}.log")
                if group.needs is not None:
                    _make_node_ready(group.needs, task.plan, place)
                reporter.begin(index, unsent=_unsent(task, rank=number))
                plan = replace(task.plan, folder=folder)
                rank.train(plan, put=put, pace=reporter.pace, extent=task.extent)
                reporter.end(wait=task.unsent_folder is None)
    except (Exception, SystemExit) as err:
        error = RankError(
            rank=number,
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


def _folder_of(group: GroupTask) -> contextlib.AbstractContextManager[Path]:
    """Where the job's files are, on this machine."""
    if group.luggage is None:
        return contextlib.nullcontext(group.tasks[0].plan.folder)
    return at_hand(group.luggage)


def _make_node_ready(needs: NodeNeeds, plan: LaunchPlan, place: "Place") -> None:
    """Let the first rank of each node look at it and compile; the others wait. Collective."""
    if place.local_rank == 0:
        check_package(needs, node=place.node)
        compile_ops(plan.compiled_ops, node=place.node)
    if plan.compiled_ops:
        # Torch's own would run into its timeout.
        ray.train.collective.barrier()


def _unsent(task: RankTask, *, rank: int) -> UnsentRecords | None:
    return None if task.unsent_folder is None else UnsentRecords(task.unsent_folder, rank=rank)


def _send_output_to(path: Path) -> None:
    """Everything this process writes, C++ included, goes to a file from here on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.write(2, f"rank process {os.getpid()} at {time.strftime('%H:%M:%S')}\n".encode())
