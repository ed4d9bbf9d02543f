import json
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.launch.submission.parcel import SUBMITTED, differences, pack
from orchestrator.plan.launch_plan import make_plan
from tests import small_jobs

FACTORY = {"model": {"factory": "mine.nets:build"}}
TEXT = {
    "model": {"family": "gpt2"},
    "data": {"source": "text", "path": "texts/a.txt", "max_bytes": None},
}


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Pack a job whose folder and current folder hold more than it needs."""
    beside, here, target = (tmp_path / name for name in ("jobs", "here", "parcel"))
    for path in (beside / "mine" / "nets.py", beside / "texts" / "a.txt", here / "helper.py",
                 here / "tests" / "test_it.py", here / ".git" / "config", here / "data.bin",
                 here / ".orchestrator" / "runs" / "old.py",
                 here / ".venv" / "lib" / "library.py"):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n" * 100)
    target.mkdir()
    monkeypatch.chdir(here)

    def work(**changes):
        job = small_jobs.write_job(beside, **changes)
        plan = make_plan(job, machine=small_jobs.MACHINE, n_params=10)
        parcel = pack(job, plan, folder=target)
        found = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
        return parcel, {name for name in found if not name.startswith("orchestrator/")}, found

    return work


def test_a_job_without_code_of_its_own_travels_with_the_package_alone(packed):
    parcel, own, every = packed()
    assert own == {parcel.job, SUBMITTED}
    assert {"orchestrator/cli.py", "orchestrator/spec/job.schema.json"} <= every
    assert not [name for name in every if "__pycache__" in name]
    assert parcel.n_bytes < 5_000_000
    told = json.loads((parcel.folder / SUBMITTED).read_text())
    assert set(told["versions"]) == {"python", "ray", "torch", "deepspeed", "mlflow"}


def test_modules_beside_the_job_and_in_the_current_folder_travel_and_nothing_else(packed):
    parcel, own, _ = packed(**FACTORY)
    assert own == {parcel.job, SUBMITTED, "job/mine/nets.py", "helper.py"}
    assert json.loads((parcel.folder / SUBMITTED).read_text())["n_params"] == 10


def test_a_text_beside_the_job_travels(packed):
    parcel, own, _ = packed(**TEXT)
    assert own == {parcel.job, SUBMITTED, "job/texts/a.txt"}


def test_too_much_data_is_told_with_its_place(packed, tmp_path):
    (tmp_path / "jobs" / "texts" / "a.txt").write_bytes(b"x" * (11 * 2**20))
    with pytest.raises(SpecError, match=r"data.path: 11\.0 MiB of data, and at most 10\.0 MiB"):
        packed(**TEXT)


def test_a_file_above_the_job_does_not_travel(packed):
    with pytest.raises(SpecError, match="does not lie below the job file"):
        packed(**{**TEXT, "data": {"source": "text", "path": "../here/helper.py"}})


def test_only_another_minor_version_is_a_difference():
    theirs = {"python": "3.11.7", "torch": "2.13.0+cpu", "ray": "2.60.0", "mlflow": "3.17.2"}
    ours = {"python": "3.11.9", "torch": "2.13.1", "ray": "2.61.0"}
    assert differences(theirs, ours) == [
        "ray 2.61.0 on the cluster and 2.60.0 where the job was submitted; install the same on "
        "both",
        "mlflow none on the cluster and 3.17.2 where the job was submitted; install the same on "
        "both",
    ]


def test_the_job_file_is_as_it_was_written(packed):
    parcel, _, _ = packed()
    written = (Path(parcel.folder) / parcel.job).read_text()
    assert "name:" in written


@pytest.mark.parametrize("key", ["data.path", "deepspeed"])
def test_an_absolute_path_is_the_nodes_own_and_does_not_travel(packed, tmp_path, key):
    path = tmp_path / "every-node" / "file"
    path.parent.mkdir()
    path.write_text('{"wall_clock_breakdown": false}' * (1 if key == "deepspeed" else 100))
    changes = (
        {"deepspeed": str(path)}
        if key == "deepspeed"
        else {**TEXT, "data": {"source": "text", "path": str(path)}}
    )
    parcel, own, _ = packed(**changes)
    assert own == {parcel.job, SUBMITTED}
