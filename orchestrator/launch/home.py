"""The state folder: tracking store, run folders, logs; and where compiled extensions lie.

`.orchestrator/` in the current folder unless `--home` or ORCHESTRATOR_HOME names another.
"""

import functools
import hashlib
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from orchestrator.errors import UsageError

DEFAULT_NAME = ".orchestrator"
_LIBRARIES = ("orchestrator", "ray", "torch", "deepspeed", "mlflow", "transformers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A state folder that can be written."""

    path: Path

    def run_folder(self, name: str, *, at_unix_s: float) -> Path:
        """Make the folder of one run, named by time so that runs sort as they were started.

        Raises:
            UsageError: it cannot be made.
        """
        return _made(self.path / "runs" / _stamped(name, at_unix_s=at_unix_s))

    def comparison_folder(self, name: str, *, at_unix_s: float) -> Path:
        """Make the folder of one comparison, named as a run's.

        Raises:
            UsageError: it cannot be made.
        """
        return _made(self.comparisons / _stamped(name, at_unix_s=at_unix_s))

    def report_folder(self, name: str, *, at_unix_s: float) -> Path:
        """Make the folder of one report on past runs, named as a run's.

        Raises:
            UsageError: it cannot be made.
        """
        plain = re.sub(r"[^\w.-]+", "_", name).strip("_.")[:100] or "runs"
        return _made(self.reports / _stamped(plain, at_unix_s=at_unix_s))

    @property
    def reports(self) -> Path:
        """Where reports on past runs lie, a folder each."""
        return self.path / "reports"

    @property
    def comparisons(self) -> Path:
        """Where comparisons lie, a folder each."""
        return self.path / "comparisons"

    @property
    def receipts(self) -> Path:
        """Where forecasts lie beside what was measured, a file a run."""
        return self.path / "receipts"

    @property
    def probes(self) -> Path:
        """Where measured overheads of devices lie."""
        return self.path / "probes"

    def extensions(self, environment: Mapping[str, str]) -> Path:
        """Where compiled ops lie: one folder for each set of versions and processor.

        It is TORCH_EXTENSIONS_DIR where that is set; else in the user's cache, which all state
        folders share; else, where there is none that can be written, in this state folder.

        Args:
            environment: the environment variables of this process.
        """
        if chosen := environment.get("TORCH_EXTENSIONS_DIR"):
            return Path(chosen)
        name = re.sub(r"[^\w.-]", "_", _extensions_name())
        return self._shared(name, environment)

    def shadows(self, environment: Mapping[str, str]) -> Path:
        """Where answers of shadow processes lie; they hold for every state folder.

        Args:
            environment: the environment variables of this process.
        """
        return self._shared("shadows", environment)

    def _shared(self, name: str, environment: Mapping[str, str]) -> Path:
        """A folder in the user's cache; in this state folder where there is none to write to."""
        cache = _cache_folder(environment)
        return (self.path if cache is None else cache / "orchestrator") / name


def open_home(path: Path) -> Home:
    """Make the state folder if it is missing and see that it can be written.

    Raises:
        UsageError: it cannot be made or written.
    """
    probe = path / f".probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700) if not any(path.iterdir()) else None
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as err:
        raise UsageError(
            f"state folder {path} cannot be written: {err.strerror}; "
            "choose another with --home or ORCHESTRATOR_HOME"
        ) from err
    return Home(path=path.resolve())


def versions() -> dict[str, str]:
    """Library -> version, as installed."""
    return {name: version(name) for name in _LIBRARIES}


@functools.cache
def package_files() -> dict[str, str]:
    """Path of each module of this package -> a hash of it."""
    package = Path(__file__).parents[1]
    return {
        str(path.relative_to(package)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(package.rglob("*.py"))
        # An editor's lock is a link that leads nowhere.
        if path.is_file()
    }


def own_code() -> str:
    """A hash of this package's code, which tells versions of it apart."""
    return hashlib.sha256(repr(package_files()).encode()).hexdigest()


def _stamped(name: str, *, at_unix_s: float) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(at_unix_s))
    return f"{stamp}-{int(at_unix_s * 1000) % 1000:03d}-{name}"


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UsageError(f"run folder {folder} cannot be made: {err.strerror}") from err
    return folder


def _extensions_name() -> str:
    return (
        f"extensions-torch{version('torch')}-deepspeed{version('deepspeed')}"
        f"-{sys.implementation.cache_tag}-{_processor()}"
    )


def _cache_folder(environment: Mapping[str, str]) -> Path | None:
    """The user's cache, if it can be written; it need not be there yet.

    Source:
        XDG Base Directory Specification 0.8: a relative XDG_CACHE_HOME is to be ignored.
    """
    xdg, home = (environment.get(name, "") for name in ("XDG_CACHE_HOME", "HOME"))
    cache = Path(xdg) if os.path.isabs(xdg) else Path(home) / ".cache"
    if not cache.is_absolute():
        return None
    for folder in (cache / "orchestrator", cache, cache.parent):
        if os.path.exists(folder):
            return cache if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else None
    return None


def _processor() -> str:
    """A short name for the processor's instruction set, which compiled code depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "cpu"
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return "cpu-" + hashlib.sha256(flags.encode()).hexdigest()[:8]
