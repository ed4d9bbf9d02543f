"""The README's first command, as a newcomer gives it: in a fresh clone with nothing set up."""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FIRST_COMMAND = "make launch JOB=jobs/resnet_zero2.yaml"


def run(command: str, *, cwd: Path, timeout_s: float) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "ORCHESTRATOR_HOME", "MAKEFLAGS", "MAKELEVEL", "ARGS")
    }
    return subprocess.run(
        command,
        shell=True,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_the_readme_begins_with_the_command_that_is_tested_here():
    commands = re.findall(r"^make .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert commands[0] == FIRST_COMMAND


@pytest.mark.fresh
@pytest.mark.timeout(1800)
def test_the_first_command_sets_everything_up_and_trains(tmp_path):
    clone = tmp_path / "clone"
    done = run(f"git clone --quiet {ROOT} {clone}", cwd=tmp_path, timeout_s=120)
    assert done.returncode == 0, done.stderr

    first = run(FIRST_COMMAND, cwd=clone, timeout_s=1500)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    accuracy = re.search(r"evaluation loss [\d.]+, accuracy ([\d.]+)%", first.stdout)
    assert accuracy is not None, first.stdout[-3000:]
    assert float(accuracy[1]) > 95
    assert re.search(r"^ +1 .*cpu", first.stdout, flags=re.MULTILINE), "no row for rank 1"
    assert "make ui" in first.stdout

    started = time.monotonic()
    again = run("make plan JOB=jobs/resnet_zero2.yaml", cwd=clone, timeout_s=120)
    assert again.returncode == 0, again.stderr
    assert "Setting up" not in again.stderr, "set-up was repeated"
    assert time.monotonic() - started < 20

    left = run("git status --short", cwd=clone, timeout_s=60)
    assert left.stdout == "", "the run left files that git does not ignore"
