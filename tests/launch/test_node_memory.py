import re
from pathlib import Path

from orchestrator.launch.node_memory import node_memory_bytes


def total_bytes():
    """What the kernel says that this machine has, in kB of 1024 bytes."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    found = re.search(r"^MemTotal: +(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def limits():
    """What a container may take, where there is a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        text = path.read_text(encoding="utf-8").strip() if path.exists() else "max"
        if text != "max":
            yield int(text)


def test_a_node_has_what_the_kernel_and_the_container_both_allow():
    assert node_memory_bytes() == min([total_bytes(), *limits()])


def test_memory_that_is_in_use_counts():
    before = node_memory_bytes()
    held = bytearray(64 * 2**20)
    assert node_memory_bytes() == before
    assert len(held) < before
