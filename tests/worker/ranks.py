"""Runs the ranks of a plan as plain processes on this machine, without Ray."""

import multiprocessing
import os
import queue
import socket
import time
import traceback
from dataclasses import dataclass, field

from orchestrator.measure.sample import RankFacts, RankSample, Record
from orchestrator.plan.launch_plan import LaunchPlan


@dataclass
class Outcome:
    records: list[Record] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)

    def samples(self, rank: int = 0) -> list[RankSample]:
        return [r for r in self.records if isinstance(r, RankSample) and r.rank == rank]

    def facts(self, rank: int = 0) -> RankFacts:
        return next(r for r in self.records if isinstance(r, RankFacts) and r.rank == rank)

    def losses(self) -> list[float]:
        ranks = sorted({r.rank for r in self.records if isinstance(r, RankSample)})
        per_rank = [[s.loss for s in self.samples(rank)] for rank in ranks]
        return [sum(losses) / len(losses) for losses in zip(*per_rank, strict=True)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(plan, rank, port, answers):
    os.environ |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    from orchestrator.worker.rank import Place, run_rank

    place = Place(
        rank=rank,
        world_size=plan.batch.workers,
        local_rank=rank,
        node="here",
        master_address="127.0.0.1",
        master_port=port,
        entered_unix_s=time.time(),
    )
    try:
        run_rank(plan, place, put=lambda record: answers.put((rank, record)), timeout_s=60)
    except Exception:  # noqa: BLE001
        answers.put((rank, traceback.format_exc()))
    answers.put((rank, None))


def run_ranks(plan: LaunchPlan, *, timeout_s: float = 120) -> Outcome:
    """Train a plan in as many processes as it has workers; a failed rank ends the others."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    port = _free_port()
    ranks = [
        context.Process(target=_rank, args=(plan, rank, port, answers))
        for rank in range(plan.batch.workers)
    ]
    for process in ranks:
        process.start()
    outcome = Outcome()
    running = set(range(plan.batch.workers))
    deadline = time.monotonic() + timeout_s
    try:
        while running and time.monotonic() < deadline:
            try:
                rank, message = answers.get(timeout=1)
            except queue.Empty:
                continue
            if message is None:
                running.discard(rank)
            elif isinstance(message, str):
                outcome.errors[rank] = message
                deadline = min(deadline, time.monotonic() + 10)
            else:
                outcome.records.append(message)
    finally:
        for process in ranks:
            process.kill() if running else None
            process.join(10)
    if running and not outcome.errors:
        raise TimeoutError(f"ranks {sorted(running)} did not finish in {timeout_s:.0f} s")
    return outcome
