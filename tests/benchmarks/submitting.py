"""From a command to the first optimizer step: `submit` against `launch` on the same cluster.

The cluster is that of cluster/ray-local.sh: two nodes on this machine. Each pair submits a job from
outside and launches it from inside, in turn; the clock runs from the command to the moment at which
rank 0 ended its first step, which the run's records tell. Run it by `make bench-submitting`.
"""

import argparse
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from orchestrator.measure.sample import RankSample
from orchestrator.track.spool import records_in

ROOT = Path(__file__).resolve().parents[2]
REACH = 1.2
"""To reach: `submit` takes at most so many times as long as `launch`."""


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """Two nodes, started and stopped as a user would."""

    def __init__(self, folder: Path) -> None:
        self._port, self._dashboard_port = free_port(), free_port()
        self._script = ROOT / "cluster" / "ray-local.sh"
        self.home = folder / "home"
        self._environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "ORCHESTRATOR_HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    def __enter__(self) -> "Cluster":
        ports = ["--port", str(self._port), "--dashboard-port", str(self._dashboard_port)]
        # A worker for each CPU of a node, however many this machine has.
        self._call([str(self._script), "start", "--cpus", "1", *ports])
        return self

    def __exit__(self, *error: object) -> None:
        self._call([str(self._script), "stop"])

    def first_step_s(self, verb: str, job: Path) -> float:
        """Run a job to its end; seconds from the command to its first step."""
        address = {
            "submit": f"http://127.0.0.1:{self._dashboard_port}",
            "launch": f"127.0.0.1:{self._port}",
        }[verb]
        before = set((self.home / "runs").glob("*"))
        started_unix_s = time.time()
        command = [sys.executable, "-m", "orchestrator", verb, str(job), "--address", address]
        self._call([*command, "--no-forecast"])
        (run,) = set((self.home / "runs").glob("*")) - before
        steps = (r for r in records_in(run / "records.jsonl") if isinstance(r, RankSample))
        return min(one.time_unix_s for one in steps) - started_unix_s

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs to measure (default 5)")
    parser.add_argument("--job", type=Path, default=ROOT / "jobs" / "resnet_zero2.yaml")
    options = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as name, Cluster(Path(name)) as cluster:
        # The tracking database is made once; nobody is to be charged for it.
        cluster.first_step_s("launch", options.job)
        for number in range(options.rounds):
            verbs = ("submit", "launch") if number % 2 else ("launch", "submit")
            took_s = {verb: cluster.first_step_s(verb, options.job) for verb in verbs}
            pairs.append(took_s)
            ratio = took_s["submit"] / took_s["launch"]
            print(
                f"pair {number + 1}: to the first step, submitted {took_s['submit']:.2f} s, "
                f"launched {took_s['launch']:.2f} s, ratio {ratio:.2f}",
                flush=True,
            )
    ratios = [pair["submit"] / pair["launch"] for pair in pairs]
    print(f"submit / launch: {median(ratios):.2f} of {len(ratios)} pairs; to reach: {REACH}")
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")


if __name__ == "__main__":
    main()
