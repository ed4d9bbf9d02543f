"""Only small, regular UTF-8 files are read, and what else a path may be is one clear line."""

import os
from pathlib import Path

import pytest

from orchestrator.errors import SpecError, UsageError
from orchestrator.spec.source import read_source


def test_text_comes_back_as_written(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes("a: ß\r\nb: 2\n".encode())
    assert read_source(path) == "a: ß\r\nb: 2\n"


def test_a_file_of_256_kib_is_read_and_one_byte_more_is_not(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"#" * 256 * 1024)
    assert len(read_source(path)) == 256 * 1024
    path.write_bytes(b"#" * (256 * 1024 + 1))
    with pytest.raises(SpecError, match=r"job\.yaml:1:1: larger than 256 KiB; keep data out"):
        read_source(path)


@pytest.mark.parametrize(
    ("raw", "place", "message"),
    [
        (b"\xef\xbb\xbfname: a\n", "1:1", "begins with a byte order mark; save as UTF-8 without"),
        (
            "name: a\n".encode("utf-16"),
            "1:1",
            "encoded as UTF-16 or UTF-32; save the file as UTF-8",
        ),
        (
            "name: a\n".encode("utf-32"),
            "1:1",
            "encoded as UTF-16 or UTF-32; save the file as UTF-8",
        ),
        ("name: a\n".encode("utf-16-be"), "1:1", "a null byte; save the file as UTF-8 text"),
        (b"name: a\nb: \x00\n", "2:4", "a null byte; save the file as UTF-8 text"),
        (b"name: a\n\xc3\xa4\xff\n", "2:2", "not UTF-8; save the file as UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\x00", "3:1", "a null byte"),
        (b"\x7fELF\x02\x01", None, None),
    ],
)
def test_what_is_not_utf8_text_says_where(tmp_path, raw, place, message):
    path = tmp_path / "job.yaml"
    path.write_bytes(raw)
    if message is None:
        assert read_source(path) == raw.decode()
        return
    with pytest.raises(SpecError, match=message) as caught:
        read_source(path)
    assert str(caught.value).startswith(f"{path}:{place}: ")


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "resnet_zero2.yaml").write_text("")
    (tmp_path / "gpt2_zero1.yaml").write_text("")
    with pytest.raises(UsageError, match=r"did you mean .*/resnet_zero2\.yaml\?"):
        read_source(tmp_path / "resnet_zero3.yaml")
    with pytest.raises(UsageError, match=r"did you mean .*/gpt2_zero1\.yaml\?"):
        read_source(tmp_path / "gpt2_zero1")


def test_a_missing_file_unlike_any_other_lists_what_is_there(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(UsageError, match=r"no such file; give a job file, such as .*/a\.yaml"):
        read_source(tmp_path / "something_else.yaml")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no such file; there is no folder .*/jubs either"):
        read_source(tmp_path / "jubs" / "a.yaml")


def test_a_folder_lists_the_jobs_in_it(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    with pytest.raises(UsageError, match=r"a folder; give a job file, such as .*/a\.yaml"):
        read_source(tmp_path)


def test_an_empty_folder_has_nothing_to_suggest(tmp_path):
    with pytest.raises(UsageError, match="a folder; give the path of a job file"):
        read_source(tmp_path)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "job.yaml")
    with pytest.raises(UsageError, match="not a regular file; give the path"):
        read_source(tmp_path / "job.yaml")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused_without_reading_it(device):
    with pytest.raises(UsageError, match=f"{device}: not a regular file"):
        read_source(Path(device))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_is_refused(tmp_path):
    path = tmp_path / "job.yaml"
    path.touch(mode=0)
    with pytest.raises(UsageError, match=r"cannot be read \(Permission denied\)"):
        read_source(path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs /proc")
def test_a_file_that_fails_while_it_is_read_is_refused():
    with pytest.raises(UsageError, match=r"/proc/self/mem: cannot be read \(Input/output error\)"):
        read_source(Path("/proc/self/mem"))


def test_a_loop_of_links_is_refused(tmp_path):
    link = tmp_path / "job.yaml"
    link.symlink_to(link)
    with pytest.raises(UsageError, match="symbolic links"):
        read_source(link)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "/dev/null/job.yaml"])
def test_impossible_paths_are_refused_on_one_line(path):
    with pytest.raises(UsageError, match=r"; give the path of a job file$") as caught:
        read_source(Path(path))
    assert "\n" not in str(caught.value)
