import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from orchestrator.launch.luggage import MOST_DATA_BYTES, at_hand, pack_luggage
from orchestrator.plan.launch_plan import make_plan
from tests import small_jobs

TEXT = {"model": {"family": "gpt2"}, "data": {"source": "text", "path": "texts", "max_bytes": None}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A job's folder and, elsewhere, the current one."""
    beside, here = tmp_path / "jobs", tmp_path / "here"
    for path, content in {
        beside / "nets.py": "width = 1",
        beside / "parts" / "layers.py": "depth = 2",
        beside / "texts" / "a.txt": "words",
        here / "nets.py": "width = 3",
        here / "helper.py": "help = True",
        here / "tests" / "test_it.py": "",
        here / ".venv" / "library.py": "",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.chdir(here)
    return beside


def plan_of(folder, **changes):
    job = small_jobs.write_job(folder, **changes)
    return make_plan(job, machine=small_jobs.MACHINE, n_params=10)


@pytest.fixture
def search_path(monkeypatch):
    """Where modules are looked for, put back after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.py")}


@pytest.fixture
def plan(folder):
    return plan_of(folder, model={"factory": "nets:build"})


def test_modules_travel_from_beside_the_job_file_and_from_the_current_folder(plan, folder):
    luggage = pack_luggage([plan])
    assert (luggage.beside.root, luggage.current.root) == (folder, Path.cwd())
    assert luggage.beside.files == {"nets.py": b"width = 1", "parts/layers.py": b"depth = 2"}
    assert luggage.current.files == {"nets.py": b"width = 3", "helper.py": b"help = True"}


def test_a_current_folder_around_the_jobs_is_not_packed_twice(plan, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    current = pack_luggage([plan]).current.files
    assert set(current) == {"here/helper.py", "here/nets.py", "here/tests/test_it.py"}


def test_a_job_without_code_of_its_own_needs_none(folder):
    luggage = pack_luggage([plan_of(folder)])
    assert (luggage.beside.files, luggage.current.files) == ({}, {})


def test_a_text_below_the_job_file_travels_unless_it_is_large(folder):
    plan = plan_of(folder, **TEXT)
    assert pack_luggage([plan]).beside.files == {"texts/a.txt": b"words"}
    (folder / "texts" / "b.txt").write_bytes(bytes(MOST_DATA_BYTES))
    assert pack_luggage([plan]).beside.files == {}


@pytest.mark.usefixtures("search_path")
def test_folders_with_the_very_files_are_taken_as_they_are(plan):
    with at_hand(pack_luggage([plan])) as found:
        assert found == plan.folder
        assert sys.path[-1] == str(Path.cwd())


@pytest.mark.usefixtures("search_path")
@pytest.mark.parametrize("change", ["other", "gone"])
def test_where_they_are_others_or_missing_they_are_unpacked_and_taken_away(plan, change):
    luggage = pack_luggage([plan])
    if change == "other":
        (plan.folder / "nets.py").write_text("width = 9")
    else:
        (plan.folder / "parts" / "layers.py").unlink()
    (Path.cwd() / "helper.py").unlink()
    with at_hand(luggage) as found:
        current = Path(sys.path[-1])
        assert (content(found), content(current)) == (luggage.beside.files, luggage.current.files)
    assert not found.exists()
    assert not current.exists()


@pytest.mark.usefixtures("search_path")
def test_what_a_killed_rank_left_is_removed_by_the_next(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    over = subprocess.Popen(["true"])
    over.wait()
    abandoned, alive = (tmp_path / f"orchestrator-job-{pid}-abc" for pid in (over.pid, os.getpid()))
    abandoned.mkdir()
    alive.mkdir()
    with at_hand(pack_luggage([plan])):
        assert not abandoned.exists()
        assert alive.exists()
