import json
from collections import Counter

import pytest

from orchestrator.launch.doctor import MIN_DISK_BYTES, Finding, examine_machine
from orchestrator.render import doctor_text


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    state = tmp_path_factory.mktemp("doctor") / "not" / "there" / "yet"
    found = examine_machine(state=state, environment={"CUDA_VISIBLE_DEVICES": ""})
    assert not state.parent.exists(), "looking changed something"
    return found


def test_nothing_that_is_missing_is_left_without_a_mend(findings):
    assert [f.name for f in findings if f.level == "missing" and not f.mend] == []


def test_what_is_well_needs_no_mend(findings):
    assert [f.name for f in findings if f.level == "ok" and f.mend] == []


def test_everything_a_job_may_need_is_looked_at_once(findings):
    names = Counter(finding.name for finding in findings)
    expected = {"Python", "ray", "torch", "deepspeed", "mlflow", "transformers", "C++ compiler",
                "libaio", "CPUs", "GPUs", "memory", "shared memory", "disk for state",
                "port of the UI"}  # fmt: skip
    assert expected <= names.keys()
    assert set(names.values()) == {1}


def test_the_libraries_of_this_environment_are_well(findings):
    levels = {finding.name: finding.level for finding in findings}
    assert levels["Python"] == levels["ray"] == levels["deepspeed"] == "ok"


def test_a_machine_without_a_compiler_is_told_how_to_get_one(tmp_path):
    found = examine_machine(state=tmp_path, environment={"CXX": "no-such-compiler"})
    compiler = next(finding for finding in found if finding.name == "C++ compiler")
    assert compiler.level == "optional"
    assert compiler.mend is not None
    assert compiler.mend.endswith("apt-get install g++")


def test_hidden_gpus_are_not_counted(findings):
    gpus = next(finding for finding in findings if finding.name == "GPUs")
    assert gpus.level == "optional"
    assert gpus.found.startswith("none")


def test_a_disk_of_too_little_room_is_missing(tmp_path):
    # /proc has no room at all.
    found = examine_machine(state=tmp_path.__class__("/proc/x"), environment={})
    disk = next(finding for finding in found if finding.name == "disk for state")
    assert disk.level == "missing"
    assert disk.mend == f"free at least {MIN_DISK_BYTES // 2**30}.0 GiB at /proc/x"


def test_findings_are_plain_json(findings):
    for finding in findings:
        assert json.loads(json.dumps(finding.to_json()))["name"] == finding.name


def test_the_text_shows_what_is_missing_and_its_mend():
    text = doctor_text(
        [
            Finding(name="Python", level="ok", found="3.11.7"),
            Finding(name="disk", level="missing", found="1.0 GiB free", mend="free at least 5 GiB"),
            Finding(name="GPUs", level="optional", found="none"),
        ]
    )
    assert text.splitlines() == [
        "ok       Python  3.11.7",
        "MISSING  disk    1.0 GiB free",
        "                 free at least 5 GiB",
        "note     GPUs    none",
    ]
