"""A small job that is right, and a way to write it with one thing changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL_JOB = (
    "name: small",
    "model: {family: resnet}",
    "data: {source: digits}",
    "training: {steps: 10, global_batch_size: 8}",
)


@pytest.fixture
def small_job() -> str:
    return "\n".join(SMALL_JOB) + "\n"


@pytest.fixture
def write_job(tmp_path: Path) -> Callable[[str], Path]:
    """Write a job file from lines that replace those of the small job, or follow them."""

    def write(changes: str = "") -> Path:
        lines = list(SMALL_JOB)
        for change in changes.split("\n"):
            key = change.partition(":")[0]
            at = next((n for n, line in enumerate(lines) if line.startswith(f"{key}:")), None)
            if at is None or not change:
                lines.append(change)
            else:
                lines[at] = change
        path = tmp_path / "job.yaml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
