"""How much memory this node has for all its processes: its own, or the container's limit."""

from pathlib import Path

import psutil

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Of cgroup 2 and 1, as a container sees its own."""


def node_memory_bytes() -> int:
    """Bytes of memory that processes here can have, those that run included.

    Source:
        Linux, Documentation/admin-guide/cgroup-v2.rst (`memory.max`) and cgroup-v1/memory.rst.
    """
    total = int(psutil.virtual_memory().total)
    for path in _LIMITS:
        try:
            total = min(total, int(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            # Not there, or "max".
            continue
    return total
