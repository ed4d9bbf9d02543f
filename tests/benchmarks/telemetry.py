"""Whether one writer keeps up with the telemetry of a thousand ranks, in bounded memory.

    .venv/bin/python tests/benchmarks/telemetry.py                    about two minutes
    .venv/bin/python tests/benchmarks/telemetry.py --busy 1 --write   also keep it under results/

A process of its own plays the ranks: every second each of them ends a step, and their records go
into a real spool, the probe step with its ledgers and timelines, the machines and the evaluations
included. Another process is the driver: its `TrackingWriter` brings the outbox to a fresh MLflow
database as in a launch, at the lowest priority. This process looks at the database and at the
writer's memory from outside.

Lag is how long a step's loss needs from the ranks' timestamp into the database. A writer that falls
behind has a lag that grows; one that keeps everything in memory, a process that grows. Both are
told for the two halves of the run after it has settled: the first steps are probes, which go out
whole.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from orchestrator.measure.ledger import CATEGORIES
from orchestrator.measure.points import MetricPoint
from orchestrator.measure.sample import (
    CudaMemory,
    EvalResult,
    GpuState,
    MemoryTimeline,
    NodeSample,
    ProbedMemory,
    RankFacts,
    RankSample,
    Record,
    ResidentMemory,
)
from orchestrator.track.base import RunStart
from orchestrator.track.environment import mlflow_environment
from orchestrator.track.mlflow import MlflowTracker
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
from orchestrator.track.store import embedded_store
from orchestrator.track.writer import TrackingWriter

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"
GIB, MIB = 2**30, 2**20
RANKS_PER_NODE = 8
LOOK_S = 0.1
MAX_LAG_GROWTH_S = 1.0
MAX_MEMORY_GROWTH_MIB = 16.0
N_MOMENTS = 200
"""Moments of a timeline, as `worker/memory_probe.py` has it."""


# The ranks.


def facts(rank: int, *, n_ranks: int, n_steps: int) -> RankFacts:
    return RankFacts(
        rank=rank,
        world_size=n_ranks,
        node=node_of(rank),
        device="NVIDIA H100 80GB HBM3",
        pid=1000 + rank,
        time_unix_s=time.time(),
        n_params=7_000_000_000,
        total_steps=n_steps,
        n_train_samples=1_000_000,
        n_eval_samples=1000,
        startup_s={"imports": 8.0, "process_group": 2.0, "data": 1.0, "model": 4.0, "engine": 9.0},
        init_peak_bytes=20 * GIB + rank * MIB,
        init_peak_ledger=ledger(20 * GIB + rank * MIB),
        init_edge_ledger=ledger(18 * GIB),
        init_rss_peak_bytes=4 * GIB,
        init_pss_bytes=3 * GIB,
        exact_rss=False,
    )


def sample(rank: int, *, step: int, dice: random.Random) -> RankSample:
    """One step of one rank on a GPU: every field that can be known is."""
    probe = step in (2, 3, 4)
    step_s = dice.gauss(0.95, 0.01)
    peak_bytes = 40 * GIB + rank * MIB + (step // 20) * MIB
    return RankSample(
        rank=rank,
        step=step,
        time_unix_s=time.time() - dice.uniform(0.0, 0.05),
        loss=10.0 / (step + 1) + dice.gauss(0, 0.01),
        lr=1e-4,
        grad_norm=1.5,
        n_samples=8,
        n_tokens=8 * 4096,
        step_s=step_s,
        data_s=dice.gauss(0.01, 0.001),
        forward_s=step_s * 0.3,
        backward_s=step_s * 0.55,
        optimizer_s=step_s * 0.1,
        communication_s=0.2 if step == 4 else None,
        logging_s=dice.gauss(0.01, 0.001),
        checkpoint_s=None,
        skipped_steps=0,
        rss_peak_bytes=4 * GIB + (step // 10) * MIB,
        probe=probe,
        phase_peak_bytes={"forward": 30 * GIB, "backward": peak_bytes, "step": 25 * GIB},
        probed=probed(peak_bytes) if step == 2 else None,
        resident=resident() if step == 3 else None,
        host_bytes=2 * GIB if step == 2 else None,
        nvme_bytes=0 if probe else None,
        container_peak_bytes=200 * GIB if probe else None,
        cuda=CudaMemory(
            reserved_bytes=peak_bytes + 2 * GIB,
            cached_bytes=int(dice.gauss(2 * GIB, 10 * MIB)),
            fragmented_bytes=int(dice.gauss(GIB, 10 * MIB)),
            n_retries=0,
        ),
        gpu=GpuState(
            utilization_ratio=dice.uniform(0.9, 1.0),
            used_bytes=60 * GIB,
            beyond_allocator_bytes=GIB,
            power_w=dice.gauss(650, 10),
        )
        if step % 5 == 1
        else None,
        model_flops=None if step <= 4 else 3e14,
        peak_flops_per_s=None if step <= 4 else 9.9e14,
    )


def ledger(n_bytes: int) -> dict[str, int]:
    return dict.fromkeys(CATEGORIES, n_bytes // len(CATEGORIES))


def probed(peak_bytes: int) -> ProbedMemory:
    phases = ("forward", "backward", "step")
    return ProbedMemory(
        peak_ledgers={phase: ledger(peak_bytes) for phase in phases},
        edge_ledgers={phase: ledger(20 * GIB) for phase in phases},
        host_ledger=ledger(2 * GIB),
    )


def resident() -> ResidentMemory:
    phases = ("forward", "backward", "step")
    return ResidentMemory(
        start_bytes=3 * GIB,
        peak_bytes=dict.fromkeys(phases, 4 * GIB),
        pss_bytes=dict.fromkeys(phases, 3 * GIB),
    )


def timeline(rank: int, *, step: int) -> MemoryTimeline:
    return MemoryTimeline(
        rank=rank,
        step=step,
        time_unix_s=time.time(),
        at_s=[moment / N_MOMENTS for moment in range(N_MOMENTS)],
        phase=["backward"] * N_MOMENTS,
        ledger={category: [5 * GIB + rank] * N_MOMENTS for category in CATEGORIES},
    )


def node_of(rank: int) -> str:
    return f"node-{rank // RANKS_PER_NODE}"


def node_sample(rank: int, *, number: int, dice: random.Random) -> NodeSample:
    names = (
        "cpu_utilization_percentage",
        "system_memory_usage_megabytes",
        "system_memory_usage_percentage",
        "disk_usage_percentage",
        "disk_usage_megabytes",
        "disk_available_megabytes",
        "network_receive_megabytes",
        "network_transmit_megabytes",
    )
    return NodeSample(
        node=node_of(rank),
        rank=rank,
        time_unix_s=time.time(),
        number=number,
        values={name: dice.uniform(0, 100) for name in names},
    )


def records_of_step(step: int, *, n_ranks: int, dice: random.Random) -> Iterator[Record]:
    for rank in range(n_ranks):
        yield sample(rank, step=step, dice=dice)
        if step == 2:
            yield timeline(rank, step=step)
        if rank % RANKS_PER_NODE == 0 and step % 10 == 1:
            yield node_sample(rank, number=step // 10, dice=dice)
    if step % 30 == 0:
        yield EvalResult(
            step=step,
            time_unix_s=time.time(),
            loss=1.0,
            accuracy=None,
            n_samples=1000,
            seconds=1.0,
        )


def play_ranks(folder: Path, n_ranks: int, n_steps: int, told: Connection) -> None:
    """Append what the ranks report, a step a second; then tell what it took."""
    dice = random.Random(0)
    late_s = 0.0
    with SpoolWriter(Outbox(folder).spool_path) as spool:
        for rank in range(n_ranks):
            spool.append(facts(rank, n_ranks=n_ranks, n_steps=n_steps))
        begun_s = time.monotonic()
        for step in range(1, n_steps + 1):
            wait_s = begun_s + step - time.monotonic()
            late_s = max(late_s, -wait_s)
            time.sleep(max(0.0, wait_s))
            for record in records_of_step(step, n_ranks=n_ranks, dice=dice):
                spool.append(record)
    told.send({"ended_unix_s": time.time(), "late_s": late_s, "cpu_s": time.process_time()})


# The driver.


def deliver(folder: Path, ready: Event, ended: Event, told: Connection) -> None:
    """Bring an outbox to a fresh database until the ranks have ended; then tell what it took."""
    os.environ.update(mlflow_environment())
    store = embedded_store(folder / "state")
    MlflowTracker(store)
    told.send({"baseline_mib": resident_mib(os.getpid())})
    outbox = Outbox(folder)
    writer = TrackingWriter(outbox, open_tracker=lambda: MlflowTracker(store))
    cpu_s = time.process_time()
    writer.start()
    ready.set()
    ended.wait()
    outbox.finish(
        status="FINISHED",
        end_time_ms=round(time.time() * 1e3),
        points=[MetricPoint(key="summary/peak_mib", value=1.0, step=0, time_ms=1)],
    )
    n_unsent = writer.close(timeout_s=600)
    told.send(
        {
            "closed_unix_s": time.time(),
            "n_unsent": n_unsent,
            "error": writer.last_error,
            "cpu_s": time.process_time() - cpu_s,
        }
    )


def keep_busy() -> None:
    while True:
        pass


# The onlooker.


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen at one moment."""

    at_s: float
    """Seconds since the first sample could come."""
    lags_s: tuple[float, ...]
    """Of the steps whose loss has come since the look before."""
    age_s: float
    """Of the newest loss in the store, or of the run while it has none."""
    n_points: int
    resident_mib: float


@dataclass(frozen=True, kw_only=True)
class Half:
    """One half of the settled run."""

    median_lag_s: float
    p95_lag_s: float
    largest_lag_s: float
    points_per_s: float
    peak_memory_mib: float
    """Resident memory of the writer's process over what it was once mlflow was imported."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A whole run."""

    ranks: int
    seconds: int
    busy_cores: int
    samples_per_s: float
    first_half: Half
    second_half: Half
    largest_lag_s: float
    finish_s: float
    n_points: int
    n_steps_with_a_loss: int
    n_unsent: int
    baseline_mib: float
    peak_memory_mib: float
    writer_cpu_ratio: float
    """Of one core."""
    ranks_cpu_ratio: float
    ranks_late_s: float
    foreign_cpu_ratio: float
    """What processes that are none of ours took, of one core."""

    @property
    def falls_behind(self) -> bool:
        grown_s = self.second_half.median_lag_s - self.first_half.median_lag_s
        return grown_s > MAX_LAG_GROWTH_S or self.n_steps_with_a_loss < self.seconds

    @property
    def grows(self) -> bool:
        grown_mib = self.second_half.peak_memory_mib - self.first_half.peak_memory_mib
        return grown_mib > MAX_MEMORY_GROWTH_MIB


class Onlooker:
    """Looks at the database as MLflow's page would, and at a process's memory."""

    def __init__(self, database: Path, *, pid: int) -> None:
        self._connection = sqlite3.connect(database, timeout=30)
        self._pid = pid
        self._begun_s = time.monotonic()
        self._seen_ms = round(time.time() * 1e3)
        self.looks: list[Look] = []

    def look(self) -> None:
        rows = self._connection.execute(
            "SELECT timestamp FROM metrics WHERE key = 'train/loss' AND timestamp > ?",
            (self._seen_ms,),
        ).fetchall()
        now_s = time.time()
        stamps_ms = [timestamp for (timestamp,) in rows]
        self._seen_ms = max([self._seen_ms, *stamps_ms])
        self.looks.append(
            Look(
                at_s=time.monotonic() - self._begun_s,
                lags_s=tuple(now_s - stamp_ms / 1e3 for stamp_ms in stamps_ms),
                age_s=now_s - self._seen_ms / 1e3,
                n_points=self._connection.execute("SELECT max(rowid) FROM metrics").fetchone()[0]
                or 0,
                resident_mib=resident_mib(self._pid),
            )
        )

    def n_steps(self) -> int:
        query = "SELECT count(DISTINCT step) FROM metrics WHERE key = 'train/loss'"
        found: int = self._connection.execute(query).fetchone()[0]
        return found


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def foreign_cpu_s() -> float:
    """CPU seconds since boot that are not this process's or its finished children's."""
    ticks = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, ticks)
    whole_s = (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    return whole_s - sum(os.times()[:4])


def half_of(looks: Sequence[Look], *, baseline_mib: float) -> Half:
    first, last = looks[0], looks[-1]
    # A half in which nothing came has no lag but that of what is still to come.
    lags_s = sorted(lag_s for look in looks for lag_s in look.lags_s) or [last.age_s]
    return Half(
        median_lag_s=statistics.median(lags_s),
        p95_lag_s=lags_s[int(0.95 * (len(lags_s) - 1))],
        largest_lag_s=lags_s[-1],
        points_per_s=(last.n_points - first.n_points) / (last.at_s - first.at_s),
        peak_memory_mib=max(look.resident_mib for look in looks) - baseline_mib,
    )


def measure(n_ranks: int, *, seconds: int, settle_s: int, n_busy: int) -> Result:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Outbox.create(
            folder,
            RunStart(key="telemetry", experiment="telemetry", name="telemetry", start_time_ms=1),
        )
        ready, ended = context.Event(), context.Event()
        heard_ranks, ranks_told = context.Pipe(duplex=False)
        heard_driver, driver_told = context.Pipe(duplex=False)
        driver = context.Process(target=deliver, args=(folder, ready, ended, driver_told))
        ranks = context.Process(target=play_ranks, args=(folder, n_ranks, seconds, ranks_told))
        busy = [context.Process(target=keep_busy, daemon=True) for _ in range(n_busy)]
        before_s, before_cpu_s = time.monotonic(), foreign_cpu_s()
        driver.start()
        ready.wait()
        for process in (*busy, ranks):
            process.start()
        onlooker = Onlooker(folder / "state" / "mlflow.db", pid=driver.pid or 0)
        heard: dict[str, Any] = heard_driver.recv()
        while not heard_ranks.poll(LOOK_S):
            onlooker.look()
        played = heard_ranks.recv()
        n_settled = len(onlooker.looks)
        ended.set()
        while not heard_driver.poll(LOOK_S):
            onlooker.look()
        heard |= heard_driver.recv()
        onlooker.look()
        for process in busy:
            process.terminate()
        for process in (*busy, ranks, driver):
            process.join()
        foreign_ratio = (foreign_cpu_s() - before_cpu_s) / (time.monotonic() - before_s)
        if heard["error"]:
            raise SystemExit(f"tracking failed: {heard['error']}")
        looks = onlooker.looks
        settled = [look for look in looks[:n_settled] if look.at_s >= settle_s]
        middle = len(settled) // 2
        whole_s = heard["closed_unix_s"] - played["ended_unix_s"] + looks[n_settled - 1].at_s
        baseline_mib = heard["baseline_mib"]
        return Result(
            ranks=n_ranks,
            seconds=seconds,
            busy_cores=n_busy,
            samples_per_s=n_ranks * seconds / looks[n_settled - 1].at_s,
            first_half=half_of(settled[:middle], baseline_mib=baseline_mib),
            second_half=half_of(settled[middle:], baseline_mib=baseline_mib),
            largest_lag_s=max(lag_s for look in looks for lag_s in look.lags_s),
            finish_s=heard["closed_unix_s"] - played["ended_unix_s"],
            n_points=looks[-1].n_points,
            n_steps_with_a_loss=onlooker.n_steps(),
            n_unsent=heard["n_unsent"],
            baseline_mib=baseline_mib,
            peak_memory_mib=max(look.resident_mib for look in looks) - baseline_mib,
            writer_cpu_ratio=heard["cpu_s"] / whole_s,
            ranks_cpu_ratio=played["cpu_s"] / seconds,
            ranks_late_s=played["late_s"],
            foreign_cpu_ratio=foreign_ratio,
        )


def show(result: Result) -> None:
    print(
        f"{result.ranks} ranks, a sample a second each, {result.seconds} s; "
        f"{result.busy_cores} of {os.cpu_count()} cores kept busy by others\n"
        f"took {result.samples_per_s:.0f} samples/s; {result.n_points:,} points in the store, the "
        f"loss of {result.n_steps_with_a_loss} steps of {result.seconds}, {result.n_unsent} unsent"
    )
    for name, half in (("first", result.first_half), ("second", result.second_half)):
        print(
            f"{name + ' half':<12} lag median {half.median_lag_s:5.2f} s, p95 "
            f"{half.p95_lag_s:5.2f} s, largest {half.largest_lag_s:5.2f} s; "
            f"{half.points_per_s:6.0f} points/s; memory +{half.peak_memory_mib:.1f} MiB"
        )
    print(
        f"whole run    largest lag {result.largest_lag_s:.2f} s; done "
        f"{result.finish_s:.2f} s after the last sample; memory +{result.peak_memory_mib:.1f} MiB "
        f"over {result.baseline_mib:.0f}\n"
        f"CPU          writer {result.writer_cpu_ratio:.0%} of a core, ranks' play "
        f"{result.ranks_cpu_ratio:.0%}, at most {result.ranks_late_s:.2f} s late; others on this "
        f"machine {result.foreign_cpu_ratio:.0%}\n"
        f"verdict      {'FALLS BEHIND' if result.falls_behind else 'keeps up'}, "
        f"memory {'GROWS' if result.grows else 'is bounded'}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=90)
    parser.add_argument("--settle", type=int, default=30, help="seconds before the two halves")
    parser.add_argument("--busy", type=int, default=0, help="cores that others keep busy")
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    options = parser.parse_args()
    result = measure(
        options.ranks, seconds=options.seconds, settle_s=options.settle, n_busy=options.busy
    )
    show(result)
    if options.write:
        from orchestrator.launch.home import versions

        RESULTS.mkdir(exist_ok=True)
        date = time.strftime("%Y-%m-%d")
        path = RESULTS / f"telemetry-{date}.json"
        kept = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
        run = {
            **asdict(result),
            "falls_behind": result.falls_behind,
            "memory_grows": result.grows,
        }
        document = {
            "date": date,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPU only",
            "versions": versions(),
            "runs": [*kept, run],
        }
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
