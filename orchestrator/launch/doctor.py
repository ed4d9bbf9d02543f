"""What this machine has and lacks, each with what mends it. Looks, and leaves nothing changed."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from ctypes.util import find_library
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from orchestrator.launch.compiled_ops import has_compiler
from orchestrator.plan.resources import this_machine
from orchestrator.units import GIB, MIB, as_bytes

Level = Literal["ok", "optional", "missing"]

MIN_SHM_BYTES = 256 * MIB
MIN_DISK_BYTES = 5 * GIB
UI_PORT = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    name: str
    level: Level
    """ok; optional: some jobs need it; missing: no job runs without it."""
    found: str
    mend: str | None = None
    """What to do about it."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def examine_machine(*, state: Path, environment: Mapping[str, str]) -> list[Finding]:
    """Look at everything a job may need.

    Args:
        state: the state folder, which need not be there yet.
        environment: the environment variables of this process.
    """
    return [
        _python(),
        *_libraries(),
        _compiler(environment),
        _libaio(),
        _cpus(),
        _gpus(environment),
        _memory(),
        examine_space("shared memory", Path("/dev/shm"), at_least=MIN_SHM_BYTES),
        _state(state),
        _port(),
    ]


def _python() -> Finding:
    good = (3, 11) <= sys.version_info[:2] <= (3, 12)
    return Finding(
        name="Python",
        level="ok" if good else "missing",
        found=platform.python_version(),
        mend=None if good else "install Python 3.11 or 3.12 and run make setup again",
    )


def _libraries() -> Iterator[Finding]:
    for text in requires("orchestrator") or ():
        requirement = Requirement(text)
        if requirement.marker is not None:
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "not installed"
        good = found != "not installed" and found in requirement.specifier
        yield Finding(
            name=requirement.name,
            level="ok" if good else "missing",
            found=found,
            mend=None if good else f"run make setup (it installs {requirement})",
        )


def _compiler(environment: Mapping[str, str]) -> Finding:
    if has_compiler(environment):
        return Finding(name="C++ compiler", level="ok", found="found")
    return Finding(
        name="C++ compiler",
        level="optional",
        found="not found",
        mend="for DeepSpeed's fast CPU Adam and for NVMe: apt-get install g++",
    )


def _libaio() -> Finding:
    headers = Path("/usr/include/libaio.h").exists()
    if find_library("aio") and headers:
        return Finding(name="libaio", level="ok", found="found")
    return Finding(
        name="libaio",
        level="optional",
        found="library without headers" if find_library("aio") else "not found",
        mend="for offload to NVMe: apt-get install libaio-dev",
    )


def _cpus() -> Finding:
    machine = this_machine(visible_devices=None)
    return Finding(name="CPUs", level="ok", found=f"{machine.n_cpus:g} cores")


def _gpus(environment: Mapping[str, str]) -> Finding:
    machine = this_machine(visible_devices=environment.get("CUDA_VISIBLE_DEVICES"))
    if not machine.n_gpus:
        return Finding(
            name="GPUs",
            level="optional",
            found="none; jobs with device: auto run on the CPU",
        )
    return Finding(name="GPUs", level="ok", found=f"{machine.n_gpus:g}, {_driver()}")


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "driver unknown (nvidia-smi does not answer)"
    return done.stdout.strip().splitlines()[0]


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    kib = {key: int(value.split()[0]) for key, value in (line.split(":") for line in lines)}
    found = f"{as_bytes(kib['MemAvailable'] * 1024)} free of {as_bytes(kib['MemTotal'] * 1024)}"
    return Finding(name="memory", level="ok", found=found)


def _state(path: Path) -> Finding:
    name = "disk for state"
    try:
        # Permissions do not tell: a disk may be read-only, and root may not write everywhere.
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=_nearest(path)):
            pass
    except OSError as err:
        return Finding(
            name=name,
            level="missing",
            found=f"{path} cannot be written: {err.strerror}",
            mend="choose another folder with --home or ORCHESTRATOR_HOME",
        )
    return examine_space(name, path, at_least=MIN_DISK_BYTES)


def examine_space(name: str, path: Path, *, at_least: int) -> Finding:
    """Look at the room there is.

    Args:
        name: what it is for.
        path: a folder, which need not be there yet.
        at_least: bytes that must be free.
    """
    free = shutil.disk_usage(_nearest(path)).free
    good = free >= at_least
    return Finding(
        name=name,
        level="ok" if good else "missing",
        found=f"{as_bytes(free)} free at {path}",
        mend=None if good else f"free at least {as_bytes(at_least)} at {path}",
    )


def _nearest(path: Path) -> Path:
    """The path itself, or of its parents the nearest that is there."""
    paths = (path.absolute(), *path.absolute().parents)
    return next(p for p in paths if os.path.exists(p))


def _port() -> Finding:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", UI_PORT)) == 0
    if not taken:
        return Finding(name="port of the UI", level="ok", found=f"{UI_PORT} is free")
    return Finding(
        name="port of the UI",
        level="optional",
        found=f"{UI_PORT} is in use",
        mend="make ui takes the next free one, or the one you give: make ui ARGS='--port 5001'",
    )
