import os
import stat
import sys

import pytest

from orchestrator.errors import UsageError
from orchestrator.launch.home import open_home, versions


def test_a_new_state_folder_is_for_its_owner_alone(tmp_path):
    home = open_home(tmp_path / "a" / "state")
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert list(home.path.iterdir()) == []


def test_a_folder_that_is_there_keeps_its_mode_and_content(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "kept").write_text("mine")
    open_home(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("place", ["file", "file/below", "/dev/full", "/proc/nothing"])
def test_a_folder_that_cannot_be_written_is_told_with_a_way_out(place, tmp_path):
    # Root may write anywhere but below a file and in /proc.
    (tmp_path / "file").write_text("a file")
    with pytest.raises(UsageError, match=r"cannot be written: .*; choose another with --home or"):
        open_home(tmp_path / place)


def test_runs_sort_as_they_were_started(tmp_path):
    home = open_home(tmp_path)
    times = [1_700_000_000.0, 1_700_000_000.25, 1_700_000_001.0, 1_700_100_000.0]
    names = [home.run_folder("z" if at < 1_700_000_001 else "a", at_unix_s=at).name for at in times]
    assert names == sorted(names)
    assert len(set(names)) == 4


def test_compiled_code_is_not_shared_between_versions(tmp_path):
    name = open_home(tmp_path).extensions({}).name
    assert versions()["torch"].replace("+", "_") in name
    assert versions()["deepspeed"] in name
    assert f"cpython-{sys.version_info[0]}{sys.version_info[1]}" in name


def test_compiled_code_is_shared_between_state_folders(tmp_path):
    environment = {"HOME": str(tmp_path)}
    folders = {open_home(tmp_path / name).extensions(environment) for name in ("a", "b")}
    (folder,) = folders
    assert folder.parent == tmp_path / ".cache" / "orchestrator"
    assert not folder.exists(), "looking for it made it"


def test_the_user_says_where_the_cache_is(tmp_path):
    environment = {"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    folder = open_home(tmp_path / "state").extensions(environment)
    assert folder.parent == tmp_path / "cache" / "orchestrator"


def test_the_user_says_where_compiled_code_lies(tmp_path):
    environment = {"TORCH_EXTENSIONS_DIR": str(tmp_path / "mine"), "XDG_CACHE_HOME": str(tmp_path)}
    assert open_home(tmp_path / "state").extensions(environment) == tmp_path / "mine"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": ""},
        {"HOME": "/nowhere"},
        {"XDG_CACHE_HOME": "/nowhere/cache"},
        {"XDG_CACHE_HOME": "/etc/hostname"},
        {"XDG_CACHE_HOME": "relative/cache"},
    ],
)
def test_without_a_cache_compiled_code_lies_in_the_state_folder(environment, tmp_path):
    assert open_home(tmp_path).extensions(environment).parent == tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_no_cache(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert open_home(tmp_path / "state").extensions(environment).parent == tmp_path / "state"
