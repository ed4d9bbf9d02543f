"""What a warm comparison costs, as a multiple of one cold launch, paired in one run.

Each pair launches the first strategy of a comparison by itself (a fresh `launch`, start to end) and
compares eight strategies of 20 steps of the same ResNet, once with every strategy taking one turn
and once with the three turns of a default comparison. Two ResNets: a small one, whose steps take
little, and that of the job file, where three of the eight strategies (stage 3) take three times as
long a step as the one that is launched. Forecasts are left out: both would pay for them alike, and
their answers are kept. Run it by `make bench-comparing`.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "resnet_compare.yaml"
EIGHT = [
    {"zero.stage": stage, "zero.offload_optimizer": optimizer, "zero.offload_params": params}
    for stage, optimizer, params in (
        (0, "none", "none"),
        (1, "none", "none"),
        (1, "cpu", "none"),
        (2, "none", "none"),
        (2, "cpu", "none"),
        (3, "none", "none"),
        (3, "cpu", "none"),
        (3, "cpu", "cpu"),
    )
]
MODELS: dict[str, dict[str, Any]] = {
    "small": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "job": {},
}
"""Changes to the model's configuration."""
REACH = 2.5
"""To reach: eight strategies within so many cold launches."""


def orchestrator(verb: str, *arguments: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """Run a verb to its end; seconds, and its JSON."""
    command = [sys.executable, "-m", "orchestrator", verb, *arguments, "--json", "--no-forecast"]
    started_s = time.perf_counter()
    done = subprocess.run(
        [*command, "--home", str(folder / "home")],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started_s
    if done.returncode:
        raise SystemExit(f"{verb} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, json.loads(done.stdout)


def job_of(folder: Path, *, model: str, n_steps: int) -> Path:
    """The comparison's job with the eight strategies, beside a name for its folder."""
    import yaml

    job = yaml.safe_load(JOB.read_text(encoding="utf-8"))
    job["training"]["steps"] = n_steps
    if MODELS[model]:
        job["model"]["config"] = MODELS[model]
        job["data"]["image_size"] = 16
    job["compare"] = {"variants": EIGHT}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pairs to measure (default 3)")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps (default 20)")
    parser.add_argument("--model", choices=list(MODELS), default="small")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = job_of(folder, model=options.model, n_steps=options.steps)
        # Compiled ops and the tracking database are made once; nobody is to be charged for them.
        orchestrator("compare", str(job), "--set", "training.steps=2", folder=folder)
        rows = []
        for number in range(options.rounds):
            cold_s, _ = orchestrator("launch", str(job), folder=folder)
            one_s, one = orchestrator(
                "compare", str(job), "--fresh", "--set", "compare.rounds=1", folder=folder
            )
            three_s, _ = orchestrator("compare", str(job), "--fresh", folder=folder)
            rows.append((cold_s, one_s, three_s))
            assert all(row["outcome"] == "ok" for row in one["rows"])
            print(
                f"pair {number + 1}: cold launch {cold_s:.1f} s, eight strategies in one turn each "
                f"{one_s:.1f} s ({one_s / cold_s:.2f}), in three {three_s:.1f} s "
                f"({three_s / cold_s:.2f})",
                flush=True,
            )
    for title, index in (("one turn each", 1), ("three turns each", 2)):
        ratios = [row[index] / row[0] for row in rows]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(
            f"{options.model} ResNet, {title}: {median(ratios):.2f} cold launches "
            f"(of {len(ratios)} pairs: {each}); to reach: {REACH}"
        )
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")


if __name__ == "__main__":
    main()
