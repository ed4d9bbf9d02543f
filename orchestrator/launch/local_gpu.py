"""The kind of GPU that this machine has, asked of its driver's own program."""

import shutil
import subprocess

from orchestrator.measure.device_table import DevicePeak
from orchestrator.measure.devices import find_device


def local_gpu() -> DevicePeak | None:
    """The first GPU, if `nvidia-smi` tells one that the table knows.

    Source:
        NVIDIA, nvidia-smi documentation: `--query-gpu=name --format=csv,noheader`.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    names = told.stdout.splitlines()
    return find_device(names[0]) if names else None
