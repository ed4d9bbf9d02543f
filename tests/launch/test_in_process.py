"""One worker without Ray: the same run, in the process of the command itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.launch.command import Command, write_users_job

pytestmark = pytest.mark.ray
ONE_WORKER = ("--in-process", "--json", "--set", "resources.workers=1")
OUT_OF_MEMORY = "model.config={mode: memory, rank: 0, at: 7}"


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """A run that goes well and one that runs out of memory, side by side."""

    def launch(name, *settings, **environment):
        job = write_users_job(tmp_path_factory.mktemp(name))
        arguments = [word for setting in settings for word in ("--set", setting)]
        home = job.parent / "h"
        command = Command("launch", job, *ONE_WORKER, *arguments, home=home, **environment)
        return command.wait(), command.left_running(), command.left_behind()

    with ThreadPoolExecutor(2) as pool:
        # An address that the environment names is for runs on Ray.
        address = {"RAY_ADDRESS": "127.0.0.1:1"}
        well = pool.submit(launch, "well", "training.engine=deepspeed", **address)
        accumulated = "training.gradient_accumulation_steps=2"
        broken = pool.submit(launch, "broken", OUT_OF_MEMORY, accumulated)
    yield well.result(), broken.result()
    for command, *_ in (well.result(), broken.result()):
        command.close()


def test_a_job_runs_under_deepspeed_and_is_recorded(commands):
    command, running, behind = commands[0]
    assert command.exit_code == 0, command.stderr
    assert command.answer["outcome"] == "ok"
    assert len(command.answer["losses"]) == 20
    assert command.tracked("select status from runs") == ["FINISHED"]
    assert (running, behind) == ([], [])


def test_a_user_that_runs_out_of_memory_is_told_with_exit_code_4(commands):
    command, *_ = commands[1]
    assert command.exit_code == 4
    assert command.answer["outcome"] == "oom"
    # Two micro-batches a step: the seventh call is in step 4.
    assert command.answer["message"].startswith("rank 0 ran out of memory after step 3: no room")
    assert command.answer["steps"] == 3
    assert command.tracked("select status from runs") == ["FAILED"]
    assert "Traceback" not in command.stderr
