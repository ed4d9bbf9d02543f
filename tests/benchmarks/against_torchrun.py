"""What a launch costs over bare torchrun: time to the first optimizer step, and time of a step.

    make bench                                  three rounds, a few minutes
    make bench ARGS="--rounds 5 --write"        also keep the result under results/

Both run the same ResNet on the same data in the same order under the same DeepSpeed dict, in turn
(bare, ours, bare, ours), each from a cold start with everything installed and no Ray running. The
ratio is taken pair by pair, since a machine's speed drifts; what other processes took of the CPUs
meanwhile is shown, so that a disturbed round can be told.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
JOB = ROOT / "jobs" / "resnet_zero2.yaml"
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Round:
    """One pair of runs, in seconds."""

    bare_first_step_s: float
    ours_first_step_s: float
    bare_step_s: float
    ours_step_s: float
    foreign_cpu_s: tuple[float, float]

    @property
    def start_ratio(self) -> float:
        return self.ours_first_step_s / self.bare_first_step_s

    @property
    def step_ratio(self) -> float:
        return self.ours_step_s / self.bare_step_s


def run_bare(plan_path: Path, scratch: Path) -> tuple[float, float]:
    """Seconds to the first step and of a step, under torchrun."""
    result = scratch / "bare.json"
    torchrun = [str(BIN / "torchrun"), "--nproc-per-node=2", "--master-port=29613"]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    started = time.time()
    subprocess.run(
        [*torchrun, str(Path(__file__).with_name("bare.py")), str(plan_path), str(result)],
        env=environment,
        check=True,
        capture_output=True,
    )
    told = json.loads(result.read_text(encoding="utf-8"))
    return told["first_step_unix_s"] - started, told["step_s"]


def run_ours(scratch: Path, *, n_steps: int) -> tuple[float, float]:
    """The same of a launch, from the records its ranks left."""
    home = scratch / "home"
    started = time.time()
    done = subprocess.run(
        [
            str(BIN / "orchestrator"),
            "launch",
            str(JOB),
            "--json",
            "--home",
            str(home),
            "--set",
            f"training.steps={n_steps}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    summary = json.loads(done.stdout)
    lines = next(home.glob("runs/*/records.jsonl")).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line.split(" ", 1)[1]) for line in lines]
    shutil.rmtree(home / "runs")
    first = max(r["time_unix_s"] for r in records if r["kind"] == "sample" and r["step"] == 1)
    return first - started, summary["ranks"][0]["step_s"]["median"]


def busy_s() -> tuple[float, float]:
    """CPU seconds since boot: of the whole machine, and of this process's finished children."""
    ticks = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    user, nice, system, _idle, _wait, irq, soft, *_ = map(int, ticks)
    children = os.times()
    whole = (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    return whole, children.children_user + children.children_system


def foreign_between(before: tuple[float, float], after: tuple[float, float]) -> float:
    """CPU seconds that were not ours. Ray's daemons are ours and are not counted as children."""
    return max(0.0, (after[0] - before[0]) - (after[1] - before[1]))


def measure(n_rounds: int, *, n_steps: int) -> list[Round]:
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        plan_path = scratch / "plan.json"
        plan = subprocess.run(
            [
                str(BIN / "orchestrator"),
                "plan",
                str(JOB),
                "--json",
                "--set",
                f"training.steps={n_steps}",
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        plan_path.write_text(plan.stdout, encoding="utf-8")
        # Ops compiled, store made, files in the page cache: what "everything installed" means.
        run_bare(plan_path, scratch)
        run_ours(scratch, n_steps=n_steps)
        for index in range(n_rounds):
            edges = [busy_s()]
            bare_first, bare_step = run_bare(plan_path, scratch)
            edges.append(busy_s())
            ours_first, ours_step = run_ours(scratch, n_steps=n_steps)
            edges.append(busy_s())
            rounds.append(
                Round(
                    bare_first_step_s=bare_first,
                    ours_first_step_s=ours_first,
                    bare_step_s=bare_step,
                    ours_step_s=ours_step,
                    foreign_cpu_s=(
                        foreign_between(edges[0], edges[1]),
                        foreign_between(edges[1], edges[2]),
                    ),
                )
            )
            show(f"round {index + 1}", rounds[-1])
    return rounds


def show(name: str, one: Round) -> None:
    print(
        f"{name:<8} first step {one.bare_first_step_s:6.2f} s bare {one.ours_first_step_s:6.2f} s "
        f"ours, ratio {one.start_ratio:.2f};  step {one.bare_step_s * 1e3:6.1f} ms bare "
        f"{one.ours_step_s * 1e3:6.1f} ms ours, ratio {one.step_ratio:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="keep the result under results/")
    options = parser.parse_args()
    rounds = measure(options.rounds, n_steps=options.steps)
    start = statistics.median(r.start_ratio for r in rounds)
    step = statistics.median(r.step_ratio for r in rounds)
    print(f"median ratio: start {start:.2f} (to reach: 2.0), step {step:.3f} (to reach: 1.02)")
    if options.write:
        from orchestrator.launch.home import versions

        RESULTS.mkdir(exist_ok=True)
        date = time.strftime("%Y-%m-%d")
        result = {
            "date": date,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPU only",
            "versions": versions(),
            "job": JOB.name,
            "steps": options.steps,
            "median_start_ratio": start,
            "median_step_ratio": step,
            "rounds": [asdict(r) for r in rounds],
        }
        path = RESULTS / f"against_torchrun-{date}.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
