import mmap
import os
import subprocess
import sys

import psutil
import pytest

from orchestrator.worker.probes.process_memory import (
    container_peak_bytes,
    proportional_bytes,
    resident_bytes,
    resident_peak_bytes,
    start_window,
)

MIB = 2**20
LARGE = 200 * MIB


def resident():
    found = resident_bytes()
    assert found is not None
    return found


def resident_peak():
    found = resident_peak_bytes()
    assert found is not None
    return found


def proportional():
    found = proportional_bytes()
    assert found is not None
    return found


def written(n_bytes):
    """Pages of our own that are there, since they were written to."""
    block = mmap.mmap(-1, n_bytes)
    for start in range(0, n_bytes, mmap.PAGESIZE):
        block[start] = 1
    return block


def test_resident_memory_is_what_psutil_says():
    assert resident() == pytest.approx(psutil.Process().memory_info().rss, rel=0.02)


def test_a_block_that_is_written_and_given_back_is_seen_in_the_peak_and_not_in_what_is_resident():
    assert start_window()
    before = resident()
    written(LARGE).close()
    assert resident() - before < LARGE / 10
    assert resident_peak() - before == pytest.approx(LARGE, rel=0.02)


def test_a_new_window_forgets_the_peak_of_the_last_one():
    written(LARGE).close()
    assert start_window()
    assert resident_peak() - resident() < LARGE / 10


def test_memory_that_is_taken_and_not_written_is_not_resident():
    before = resident()
    block = mmap.mmap(-1, LARGE)
    assert resident() - before < LARGE / 10
    block.close()


def test_pages_shared_by_two_processes_count_half_in_each_s_share():
    block = written(LARGE)
    alone = proportional()
    here, there = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        # Pages become this process's, too, when it looks at them.
        assert sum(block[start] for start in range(0, LARGE, mmap.PAGESIZE))
        os.write(here[1], b"x")
        os.read(there[0], 1)
        os._exit(0)
    os.read(here[0], 1)
    shared, whole = proportional(), resident()
    os.write(there[1], b"x")
    os.waitpid(child, 0)
    for end in (*here, *there):
        os.close(end)
    block.close()
    assert alone - shared >= LARGE * 0.49
    assert whole - shared >= LARGE * 0.49


@pytest.mark.parametrize(
    ("membership", "file"),
    [
        ("0::/job/7\n", "job/7/memory.peak"),
        ("0::/\n", "memory.peak"),
        ("4:memory:/job/7\n0::/\n", "memory/job/7/memory.max_usage_in_bytes"),
        ("4:cpu,memory:/not/mounted\n", "memory/memory.max_usage_in_bytes"),
    ],
)
def test_the_container_s_peak_is_found_in_either_version_of_control_groups(
    tmp_path, membership, file
):
    (tmp_path / "groups" / file).parent.mkdir(parents=True)
    (tmp_path / "groups" / file).write_text("123456\n")
    (tmp_path / "membership").write_text(membership)
    found = container_peak_bytes(cgroups=tmp_path / "groups", membership=tmp_path / "membership")
    assert found == 123456


def test_a_machine_without_control_groups_knows_no_container_peak(tmp_path):
    assert container_peak_bytes(cgroups=tmp_path, membership=tmp_path / "missing") is None
    (tmp_path / "membership").write_text("0::/\n")
    assert container_peak_bytes(cgroups=tmp_path, membership=tmp_path / "membership") is None


FREES = """
import ctypes, sys
from orchestrator.worker.probes.process_memory import make_resident_exact, resident_bytes
if sys.argv[1] == "exact":
    assert make_resident_exact()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = libc.memset.argtypes = None
def block(size):
    address = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(address, 1, ctypes.c_size_t(size))
    return address
# Blocks between others: the heap cannot shrink below the last one.
blocks = [block(100_000) for _ in range(1000)]
full = resident_bytes()
for one in blocks[:-1]:
    libc.free(one)
print(full - resident_bytes())
"""


@pytest.mark.parametrize(("mode", "given_back"), [("exact", True), ("default", False)])
def test_exact_mode_gives_freed_blocks_back_at_once(mode, given_back):
    done = subprocess.run(
        [sys.executable, "-c", FREES, mode], capture_output=True, text=True, check=True
    )
    freed = int(done.stdout)
    assert (freed > 90_000_000) is given_back
