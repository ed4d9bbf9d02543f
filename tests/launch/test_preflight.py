"""What is wrong with the user's own model or data is told before anything starts."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.errors import SpecError
from orchestrator.launch.preflight import plan_job
from orchestrator.plan.resources import Machine
from orchestrator.spec.load import load_job
from tests.launch.command import Command, write_users_job

MACHINE = Machine(n_cpus=2, n_gpus=0, name="this machine")

ENDS = """
import os, signal, sys
import users

def exits():
    sys.exit(0)

def exits_at_once():
    os._exit(0)

def exits_with_words():
    sys.exit("no rows")

def crashes():
    os.kill(os.getpid(), signal.SIGSEGV)

def sorted_labels():
    rows = users.Rows(3000, None)
    return {"train": [{**rows[i], "labels": 9 * (i > 2900)} for i in range(3000)], "eval": rows}

def writes():
    print("by print")
    os.write(1, b"as C libraries do\\n")
    os.system("echo by a child")
    return users.model()
"""
# --set, and what is told with exit code 2; in which words, is for `worker/test_examine`.
BAD = {
    "a module that does not import": (
        "data.factory=broken:data",
        r"data\.factory: factory broken:data: importing broken raised Zero.* \(broken.py:1\)",
    ),
    "a misspelt callable": (
        "model.factory=users:modle",
        r"model\.factory: factory users:modle: users has no 'modle'; did you mean 'model'\?",
    ),
    "labels that do not fit at the end of the data": (
        "data.factory=ends:sorted_labels",
        r"model\.factory: labels reach from 0 to 9 and the model has 2 classes",
    ),
    "a model that exits well": (
        "model.factory=ends:exits",
        r"model\.factory: ended the program while it was being examined \(exit code 0\); raise an",
    ),
    "a model that exits at once": (
        "model.factory=ends:exits_at_once",
        r"model\.factory: ended the program while it was being examined \(exit code 0\); raise an",
    ),
    "data that exits with words": (
        "data.factory=ends:exits_with_words",
        r"data\.factory: ended the program while it was being examined \(exit code 1\): no rows$",
    ),
    "a model that crashes": (
        "model.factory=ends:crashes",
        r"model\.factory: was killed while it was being examined \(signal 11: Segmentation f",
    ),
    "text that is not there": (
        "data={source: text, path: nowhere.txt}",
        r"data\.path: .*nowhere.txt.*",
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Every bad job, launched: two at a time, since each builds a model."""
    folder = tmp_path_factory.mktemp("bad")
    path = write_users_job(folder)
    (folder / "broken.py").write_text("1 / 0\n")
    (folder / "ends.py").write_text(ENDS)

    def launch(case):
        command = Command("launch", path, "--json", "--set", BAD[case][0], home=folder / "home")
        return case, command.wait()

    with ThreadPoolExecutor(2) as pool:
        commands = dict(pool.map(launch, BAD))
    yield commands
    assert not (folder / "home").exists(), "something was begun"
    for command in commands.values():
        command.close()


@pytest.mark.ray
@pytest.mark.parametrize("case", BAD)
def test_it_is_told_in_one_line(case, refused):
    command = refused[case]
    assert command.exit_code == 2
    assert len(command.stderr.splitlines()) == 1, command.stderr
    assert re.search(BAD[case][1], command.stderr)
    assert re.match(r"^(--set .*|.*job\.yaml:\d+:\d+): ", command.stderr)
    assert json.loads(command.stdout) == {"error": command.stderr.strip(), "exit_code": 2}


@pytest.mark.ray
def test_the_parameters_of_a_users_model_are_counted_whatever_it_writes_to_stdout(tmp_path):
    (tmp_path / "ends.py").write_text(ENDS)
    job = load_job(write_users_job(tmp_path), overrides=["model.factory=ends:writes"])
    # A linear layer of 4 inputs and 2 outputs.
    assert plan_job(job, machine=MACHINE, environment={}).n_params == 4 * 2 + 2


@pytest.mark.ray
def test_a_factory_is_blamed_where_its_key_stands(tmp_path):
    path = write_users_job(tmp_path)
    line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "model:" in text)
    path.write_text(path.read_text().replace("users:model", "users:no_module"))
    with pytest.raises(SpecError, match=rf"job\.yaml:{line}:9: model\.factory: factory users"):
        plan_job(load_job(path), machine=MACHINE, environment={})


def test_what_needs_no_user_code_is_told_before_any_is_run(tmp_path):
    path = write_users_job(tmp_path)
    (tmp_path / "users.py").write_text("import time; time.sleep(60)")
    job = load_job(path, overrides=["training.global_batch_size=9"])
    started = time.monotonic()
    with pytest.raises(SpecError, match=r"training\.global_batch_size: 9 does not divide"):
        plan_job(job, machine=MACHINE, environment={})
    assert time.monotonic() - started < 5
