import os
import signal
import subprocess
import sys

import pytest

from orchestrator.launch.step_file import StepFile, last_noted_step


def test_the_last_step_is_read_back(tmp_path):
    steps = StepFile(tmp_path / "logs", rank=3)
    steps.note(99)
    steps.note(100)
    assert last_noted_step(tmp_path / "logs", rank=3) == 100


def test_a_rank_without_a_step_has_none(tmp_path):
    StepFile(tmp_path, rank=0)
    assert last_noted_step(tmp_path, rank=0) is None
    assert last_noted_step(tmp_path, rank=1) is None


def test_the_step_outlives_a_rank_that_is_killed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from orchestrator.launch.step_file import StepFile\n"
        "StepFile(Path(sys.argv[1]), rank=0).note(7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert last_noted_step(tmp_path, rank=0) == 7


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(FileExistsError, match=os.strerror(17)):
        StepFile(tmp_path / "logs", rank=0)
