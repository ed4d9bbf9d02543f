"""One worker without Ray: the same run, in the process of the command itself."""

import os

import pytest

from tests.launch.command import Command, write_users_job

pytestmark = pytest.mark.ray
ONE_WORKER = ("--in-process", "--json", "--set", "resources.workers=1")


@pytest.fixture
def launch(tmp_path):
    commands = []

    def start(*arguments, **environment):
        job = write_users_job(tmp_path)
        command = Command(
            "launch", job, *ONE_WORKER, *arguments, home=tmp_path / "h", **environment
        )
        commands.append(command)
        return command.wait()

    yield start
    for command in commands:
        command.close()


def test_a_job_runs_under_deepspeed_and_is_recorded(launch):
    # An address that the environment names is for runs on Ray.
    command = launch("--set", "training.engine=deepspeed", RAY_ADDRESS="127.0.0.1:1")
    assert command.exit_code == 0, command.stderr
    assert command.answer["outcome"] == "ok"
    assert len(command.answer["losses"]) == 20
    assert command.tracked("select status from runs") == ["FINISHED"]
    assert os.getpid() not in command.left_running()
    assert command.left_running() == []
    assert command.left_behind() == []


def test_a_user_that_runs_out_of_memory_is_told_with_exit_code_4(launch):
    setting = "model.config={mode: memory, rank: 0, at: 7}"
    command = launch("--set", setting, "--set", "training.gradient_accumulation_steps=2")
    assert command.exit_code == 4
    assert command.answer["outcome"] == "oom"
    # Two micro-batches a step: the seventh call is in step 4.
    assert command.answer["message"].startswith("rank 0 ran out of memory after step 3: no room")
    assert command.answer["steps"] == 3
    assert command.tracked("select status from runs") == ["FAILED"]
    assert "Traceback" not in command.stderr
