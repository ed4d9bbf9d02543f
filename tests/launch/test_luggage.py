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
def plan(folder):
    return plan_of(folder, model={"factory": "nets:build"})


def test_modules_travel_and_those_beside_the_job_file_go_first(plan):
    assert pack_luggage([plan]).files == {
        "nets.py": b"width = 1",
        "parts/layers.py": b"depth = 2",
        "helper.py": b"help = True",
    }


def test_a_job_without_code_of_its_own_needs_none(folder):
    assert pack_luggage([plan_of(folder)]).files == {}


def test_a_text_below_the_job_file_travels_unless_it_is_large(folder):
    plan = plan_of(folder, **TEXT)
    assert pack_luggage([plan]).files == {"texts/a.txt": b"words"}
    (folder / "texts" / "b.txt").write_bytes(bytes(MOST_DATA_BYTES))
    assert pack_luggage([plan]).files == {}


def test_a_folder_with_the_very_files_is_taken_as_it_is(plan):
    with at_hand(plan, pack_luggage([plan])) as found:
        # What lies in the current folder is not beside the job file.
        assert found != plan.folder
    (Path.cwd() / "helper.py").rename(plan.folder / "helper.py")
    with at_hand(plan, pack_luggage([plan])) as found:
        assert found == plan.folder


@pytest.mark.parametrize("change", ["other", "gone"])
def test_where_they_are_others_or_missing_they_are_unpacked_and_taken_away(plan, change):
    luggage = pack_luggage([plan])
    if change == "other":
        (plan.folder / "nets.py").write_text("width = 9")
    else:
        (plan.folder / "parts" / "layers.py").unlink()
    with at_hand(plan, luggage) as found:
        assert found != plan.folder
        told = {str(p.relative_to(found)): p.read_bytes() for p in found.rglob("*.py")}
        assert told == luggage.files
    assert not found.exists()
