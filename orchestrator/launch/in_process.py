"""One rank in this very process: the twin of the Ray launcher, for debugging and for tests."""

import os
import socket
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.launch.base import LOOPBACK, LOOPBACK_ONLY, Launch
from orchestrator.launch.failure import RankError, RunError, judge
from orchestrator.measure.sample import RankSample, Record
from orchestrator.track.spool import SpoolWriter

if TYPE_CHECKING:
    from orchestrator.worker.rank import Rank


class InProcessLauncher:
    """Runs plans of one worker without starting anything."""

    def run(self, launches: Sequence[Launch]) -> None:
        """Train in this process.

        Raises:
            RunError: training failed.
            ValueError: a plan has more than one worker.
        """
        first = launches[0]
        if first.plan.resources.workers != 1:
            raise ValueError(f"one process cannot be {first.plan.resources.workers} workers")
        entered = time.time()
        os.environ.update(first.rank_environment)
        for name, value in LOOPBACK_ONLY.items():
            os.environ.setdefault(name, value)
        from orchestrator.worker.place import Place, this_node
        from orchestrator.worker.rank import Rank

        place = Place(
            rank=0,
            world_size=1,
            local_rank=0,
            node=this_node(),
            master_address=LOOPBACK,
            master_port=_free_port(),
            entered_unix_s=entered,
        )
        last_steps: dict[int, int] = {}
        try:
            with Rank(first.plan, place, timeout_s=first.collective_timeout_s) as rank:
                for number, launch in enumerate(launches):
                    last_steps.clear()
                    if number:
                        rank.clear()
                    _train(rank, launch, last_steps=last_steps)
        except Exception as err:
            error = RankError(
                rank=0,
                kind=type(err).__name__,
                message=str(err),
                traceback=traceback.format_exc(),
            )
            raise RunError(judge({0: error}, last_steps=last_steps)) from err

    compiles = False
    """The driver does, which is this process."""

    def abort(self) -> None:
        """Do nothing: one's own thread cannot be ended."""

    def renew(self) -> None:
        """Do nothing: nothing was started."""


def _train(rank: "Rank", launch: Launch, *, last_steps: dict[int, int]) -> None:
    with SpoolWriter(launch.spool_path) as spool:

        def put(record: Record) -> None:
            if isinstance(record, RankSample):
                last_steps[0] = record.step
            spool.append(record)

        rank.train(launch.plan, put=put, extent=launch.extent)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
