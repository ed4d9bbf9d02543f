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


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_ledger_on_a_gpu_adds_up_to_the_allocator_s_peak(tmp_path, stage):
    (rank,) = launch(tmp_path, device="cuda", stage=stage)["ranks"]
    assert sum(rank["ledger"].values()) == rank["peak_bytes"]
    for phase, ledger in rank["peak_ledgers"].items():
        # Later steps may reach a little more than the one that was traced.
        assert sum(ledger.values()) <= rank["phase_peak_bytes"][phase]
        assert ledger["unattributed"] < 0.01 * sum(ledger.values())
    assert rank["ledger"]["params"] > 0
    assert rank["cuda"]["reserved_bytes"] >= rank["peak_bytes"]
    assert rank["mfu_ratio"] is None or 0 < rank["mfu_ratio"] < 1


def test_the_driver_tells_what_the_device_holds_beyond_the_allocator(tmp_path):
    (rank,) = launch(tmp_path, device="cuda", stage=2)["ranks"]
    assert rank["gpu"] is not None
    # A CUDA context takes some hundred MiB.
    assert rank["gpu"]["beyond_allocator_bytes"] > 50 * 2**20
    assert rank["gpu"]["used_bytes"] > rank["cuda"]["reserved_bytes"]
