"""Runs the ranks of a plan as plain processes on this machine, without Ray.

Every rank is forked from a server process that has imported the libraries once, so that a run takes
seconds and still starts clean.
"""

import gc
import multiprocessing
import queue
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.measure.sample import EvalResult, ProbedMemory, RankFacts, RankSample
from orchestrator.plan.launch_plan import LaunchPlan

Work = Callable[..., None]

EXTENSIONS = Path(__file__).parents[2] / ".orchestrator" / "extensions-tests"
"""DeepSpeed's compiled ops, kept between test runs."""
_ENVIRONMENT = {
    "DS_ACCELERATOR": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TORCH_EXTENSIONS_DIR": str(EXTENSIONS),
}
_IMPORTED_ONCE = [
    "orchestrator.worker.rank",
    "orchestrator.worker.torch_engine",
    "orchestrator.worker.deepspeed_engine",
    "orchestrator.models.cnn",
    "orchestrator.models.gpt2",
    "orchestrator.models.mlp",
    "transformers.models.resnet.modeling_resnet",
    "torch.utils.cpp_extension",
    # What deepspeed.initialize imports when it is called.
    "torch._dynamo",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.ops.adam",
]


@dataclass
class Outcome:
    """What the ranks of one run told."""

    records: list[Any] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    """Rank -> its traceback."""

    def samples(self, rank: int = 0) -> list[RankSample]:
        return [r for r in self.records if isinstance(r, RankSample) and r.rank == rank]

    def facts(self, rank: int = 0) -> RankFacts:
        return next(r for r in self.records if isinstance(r, RankFacts) and r.rank == rank)

    def evaluation(self) -> EvalResult:
        return next(r for r in reversed(self.records) if isinstance(r, EvalResult))

    def losses(self) -> list[float]:
        ranks = sorted({r.rank for r in self.records if isinstance(r, RankSample)})
        per_rank = [[s.loss for s in self.samples(rank)] for rank in ranks]
        return [sum(losses) / len(losses) for losses in zip(*per_rank, strict=True)]

    def phase_peaks(self, rank: int = 0) -> dict[str, int]:
        """Peak bytes by phase, of the step that was traced."""
        return next(s.phase_peak_bytes for s in self.samples(rank) if s.phase_peak_bytes)

    def probed(self, rank: int = 0) -> ProbedMemory:
        """What the memory probe saw."""
        return next(s.probed for s in self.samples(rank) if s.probed)

    def last_errors(self) -> dict[int, str]:
        """Rank -> the last line of its traceback."""
        return {rank: text.strip().splitlines()[-1] for rank, text in self.errors.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(plan: LaunchPlan, *, work: Work | None = None, timeout_s: float = 240) -> Outcome:
    """Train a plan in as many processes as it has workers; a failed rank ends the others.

    Args:
        plan: what to train.
        work: called in each rank instead of training; it must be importable.
        timeout_s: for all of it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    with pytest.MonkeyPatch.context() as patch:
        # The server takes its environment from the process that first asks for it.
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        answers = context.Queue()
        port = free_port()
        ranks = [
            context.Process(target=_rank, args=(plan, rank, port, answers, work))
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
                deadline = min(deadline, time.monotonic() + 15)
            else:
                outcome.records.append(message)
    finally:
        for process in ranks:
            if running:
                process.kill()
            process.join(20)
            process.close()
        answers.close()
        answers.join_thread()
    if running and not outcome.errors:
        raise TimeoutError(f"ranks {sorted(running)} did not finish in {timeout_s:.0f} s")
    return outcome


def _rank(plan, rank, port, answers, work):
    # What the server imported is no garbage, and to look at it would copy its pages.
    gc.freeze()
    from orchestrator.worker.place import Place
    from orchestrator.worker.probes import flops
    from orchestrator.worker.rank import run_rank

    # How fast this machine is, hundreds of times over, is not what these runs are for.
    flops.GEMM_SIZE, flops.GEMM_S = 64, 0.0
    work = work or partial(run_rank, timeout_s=60)
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
        work(plan, place, put=lambda record: answers.put((rank, record)))
    except Exception:  # noqa: BLE001
        answers.put((rank, traceback.format_exc()))
    answers.put((rank, None))
