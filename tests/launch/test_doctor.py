import json
import re
from collections import Counter

import pytest

from orchestrator.launch.doctor import Finding, examine_machine, examine_space
from orchestrator.render.run import doctor_text


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
    disk = examine_space("disk", tmp_path / "new", at_least=2**80)
    assert disk.level == "missing"
    assert disk.mend is not None
    assert re.fullmatch(rf"free at least [\d,]+.0 .iB at {tmp_path}/new", disk.mend)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nope", "/proc/no/pe"])
def test_a_state_folder_that_cannot_be_written_is_told_as_such(place, tmp_path):
    (tmp_path / "file").write_text("a file")
    state = tmp_path / place
    found = examine_machine(state=state, environment={})
    disk = next(finding for finding in found if finding.name == "disk for state")
    assert disk.level == "missing"
    assert re.fullmatch(
        rf"{state} cannot be written: (Not a|No such file or) directory", disk.found
    )
    assert disk.mend == "choose another folder with --home or ORCHESTRATOR_HOME"


def test_looking_at_a_state_folder_leaves_nothing_in_it(tmp_path):
    found = examine_machine(state=tmp_path, environment={})
    assert next(finding.level for finding in found if finding.name == "disk for state") == "ok"
    assert list(tmp_path.iterdir()) == []


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
