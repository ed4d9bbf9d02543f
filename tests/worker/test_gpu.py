"""What only a GPU can show: peaks from CUDA's allocator, and losses that agree with the CPU.

Run with `make test-gpu`, on a machine with CUDA.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.gpu


def launch(tmp_path: Path, *, device: str, stage: int) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "orchestrator",
            "launch",
            str(ROOT / "jobs" / "cnn_zero0.yaml"),
            "--json",
            "--in-process",
            "--home",
            str(tmp_path / f"{device}-{stage}"),
            *("--set", "resources.workers=1", "--set", f"resources.device={device}"),
            *("--set", "training.steps=10", "--set", f"zero.stage={stage}"),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_losses_on_a_gpu_are_those_of_the_cpu_and_peaks_come_from_its_allocator(tmp_path, stage):
    on_gpu = launch(tmp_path, device="cuda", stage=stage)
    on_cpu = launch(tmp_path, device="cpu", stage=stage)
    assert on_gpu["losses"] == pytest.approx(on_cpu["losses"], rel=1e-3)
    (rank,) = on_gpu["ranks"]
    assert rank["device"] != "cpu"
    assert all(rank["phase_peak_bytes"][phase] for phase in ("init", "forward", "backward", "step"))
