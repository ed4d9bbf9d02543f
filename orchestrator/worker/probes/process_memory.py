"""Resident memory of this process, and of the container it runs in, as Linux counts it.

Resident is not the same as held by tensors: it has Python, libraries and freed pages too, and of a
tensor only the pages that were written to.

Source: proc(5) for `VmHWM`, `clear_refs` and `smaps_rollup`; mallopt(3) and malloc_trim(3); the
kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import contextlib
import ctypes
import os
import re
from pathlib import Path

_PROC = Path("/proc/self")
_CGROUPS = Path("/sys/fs/cgroup")
_RESET_PEAK = b"5"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD_BYTES = 65_536
"""In exact mode, blocks from this size on get pages of their own, and give them back when freed."""


def resident_bytes() -> int | None:
    """Resident memory now."""
    return _status_bytes("VmRSS")


def resident_peak_bytes() -> int | None:
    """The most resident memory since the process began, or since `start_window`."""
    # Where the kernel keeps no high-water mark, what is resident now is all that is known.
    peak = _status_bytes("VmHWM")
    return resident_bytes() if peak is None else peak


def start_window() -> bool:
    """Let the peak of resident memory begin anew; freed memory goes back to the system first.

    Without the trim, pages that the allocator keeps would be taken again unseen.

    Returns:
        Whether the kernel did it.
    """
    _trim()
    try:
        (_PROC / "clear_refs").write_bytes(_RESET_PEAK)
    except OSError:
        return False
    return True


def proportional_bytes() -> int | None:
    """Resident memory in which a page shared by n processes counts 1/n, so that ranks add up.

    Takes tens of milliseconds.
    """
    try:
        text = (_PROC / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^Pss:\s+(\d+) kB$", text, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def container_peak_bytes(
    *, cgroups: Path = _CGROUPS, membership: Path = _PROC / "cgroup"
) -> int | None:
    """The most memory that this process's control group ever held, page cache included.

    It is what an out-of-memory killer looks at: of all processes of the container, since it began.

    Args:
        cgroups: where the control groups are mounted.
        membership: which ones this process is in.
    """
    for path in _peak_files(cgroups, membership):
        with contextlib.suppress(OSError, ValueError):
            return int(path.read_text(encoding="ascii"))
    return None


def make_resident_exact() -> bool:
    """Let resident memory follow what is allocated: freed blocks go back to the system at once.

    Costs time at every large allocation, so it is for runs that measure memory.

    Returns:
        Whether the C library can.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    return bool(done and mallopt(_M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES))


def _trim() -> None:
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _status_bytes(name: str) -> int | None:
    with open(_PROC / "status", "rb", buffering=0) as file:
        text = file.read(4096)
    start = text.find(b"\n" + name.encode() + b":")
    if start < 0:
        return None
    number, unit = text[start + len(name) + 2 : text.index(b"\n", start + 1)].split()
    return int(number) * 1024 if unit == b"kB" else None


def _peak_files(cgroups: Path, membership: Path) -> list[Path]:
    """Where the peak may stand: version 2 first, then version 1, own group first, then the root."""
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            files.append(cgroups / group.lstrip("/") / "memory.peak")
        elif "memory" in controllers.split(","):
            v1 = cgroups / "memory"
            files += [
                v1 / group.lstrip("/") / "memory.max_usage_in_bytes",
                v1 / "memory.max_usage_in_bytes",
            ]
    return [Path(os.path.normpath(path)) for path in files]
