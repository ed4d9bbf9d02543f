"""One rank in this very process: the twin of the Ray launcher, for debugging and for tests."""

import os
import socket
import time
import traceback

from orchestrator.launch.base import Launch
from orchestrator.launch.failure import RankError, RunError, judge
from orchestrator.measure.sample import RankSample, Record
from orchestrator.track.spool import SpoolWriter


class InProcessLauncher:
    """Runs a plan of one worker without starting anything."""

    def run(self, launch: Launch) -> None:
        """Train in this process.

        Raises:
            RunError: training failed.
            ValueError: the plan has more than one worker.
        """
        if launch.plan.resources.workers != 1:
            raise ValueError(f"one process cannot be {launch.plan.resources.workers} workers")
        entered = time.time()
        os.environ.update(launch.rank_environment)
        from orchestrator.worker.rank import Place, run_rank, this_node

        last_steps: dict[int, int] = {}
        place = Place(
            rank=0,
            world_size=1,
            local_rank=0,
            node=this_node(),
            master_address="127.0.0.1",
            master_port=_free_port(),
            entered_unix_s=entered,
        )
        with SpoolWriter(launch.spool_path) as spool:

            def put(record: Record) -> None:
                if isinstance(record, RankSample):
                    last_steps[0] = record.step
                spool.append(record)

            try:
                run_rank(launch.plan, place, put=put, timeout_s=launch.collective_timeout_s)
            except Exception as err:
                error = RankError(
                    rank=0,
                    kind=type(err).__name__,
                    message=str(err),
                    traceback=traceback.format_exc(),
                )
                raise RunError(judge({0: error}, last_steps=last_steps)) from err


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
