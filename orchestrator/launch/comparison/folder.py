"""The folder of a comparison: its strategies' run folders, and what it takes to go on with it.

state.json             what is compared, and whether all of it is there
start.json, artifacts/ the comparison's own run, as an outbox; the report among its artifacts
strategies/03-zero2/   the run folder of a strategy; a second attempt is 03-zero2.2
controls/              the baseline again, from weights moved by a bit
"""

import contextlib
import fcntl
import hashlib
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import UsageError
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.home import Home, versions
from orchestrator.launch.shadows import user_code
from orchestrator.plan.resources import Machine
from orchestrator.spec.data import TextData
from orchestrator.spec.sections import CompareSection


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a comparison's folder says of itself."""

    name: str
    fingerprint: str
    """Of the job, the versions and the device; what was measured under another is not reused."""
    started_unix_s: float
    strategies: tuple[str, ...]
    complete: bool
    """Every strategy has its outcome."""
    spent_s: float
    """What earlier commands took."""


class ComparisonFolder:
    """One comparison on disk, held by one process at a time."""

    def __init__(self, path: Path, lock: IO[str], *, fingerprint: str) -> None:
        """Take a folder that is locked already."""
        self.path = path
        self.fingerprint = fingerprint
        self._lock = lock

    @property
    def key(self) -> str:
        """The comparison's run key."""
        return self.path.name

    def release(self) -> None:
        """Let others have it."""
        self._lock.close()

    def state(self) -> State:
        """What it says of itself.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        return _state(self.path)

    def write(self, state: State) -> None:
        """Write down what it is."""
        partial = self.path / "state.json.partial"
        partial.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        partial.replace(self.path / "state.json")

    def attempts(self, index: int, name: str) -> list[Path]:
        """The folders of a strategy, the newest attempt last."""
        first = self.path / "strategies" / f"{index:02d}-{name}"
        found = [first] if first.is_dir() else []
        number = 2
        while (later := first.with_name(f"{first.name}.{number}")).is_dir():
            found.append(later)
            number += 1
        return found

    def next_attempt(self, index: int, name: str) -> Path:
        """A folder of a strategy that is not there yet."""
        n_there = len(self.attempts(index, name))
        suffix = f".{n_there + 1}" if n_there else ""
        return self.path / "strategies" / f"{index:02d}-{name}{suffix}"

    def control(self, precision: str, number: int) -> Path:
        """The folder of a run of the baseline from weights moved by a bit."""
        return self.path / "controls" / f"{precision}-{number}"

    def controls(self) -> list[Path]:
        """The folders of all such runs."""
        return sorted((self.path / "controls").glob("*-*"))


def new_folder(home: Home, *, name: str, at_unix_s: float, fingerprint: str) -> ComparisonFolder:
    """Make the folder of a comparison.

    Raises:
        UsageError: it cannot be made.
    """
    path = home.comparison_folder(name, at_unix_s=at_unix_s)
    lock = _locked(path)
    if lock is None:
        raise UsageError(f"{path} is in use by another comparison; wait for it to end")
    return ComparisonFolder(path, lock, fingerprint=fingerprint)


def unfinished(home: Home, *, fingerprint: str) -> ComparisonFolder | None:
    """The newest comparison of the very same that lacks something and that nobody works on."""
    folders = sorted(home.comparisons.glob("*/state.json"), reverse=True)
    for path in (file.parent for file in folders):
        # What another process writes just now, or a damaged one, is none to go on with.
        with contextlib.suppress(OSError, ValueError):
            state = _state(path)
            if state.fingerprint == fingerprint and not state.complete:
                lock = _locked(path)
                if lock is not None:
                    return ComparisonFolder(path, lock, fingerprint=fingerprint)
    return None


def outdated(home: Home, *, name: str, fingerprint: str) -> str | None:
    """The key of the newest comparison of a name, if that lacks something and is of another kind.

    Args:
        home: the state folder.
        name: the job's.
        fingerprint: of what is to be compared now.
    """
    for file in sorted(home.comparisons.glob("*/state.json"), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            state = _state(file.parent)
            if state.name == name:
                is_other = state.fingerprint != fingerprint and not state.complete
                return file.parent.name if is_other else None
    return None


def fingerprint(
    planned: Sequence[PlannedStrategy], compare: CompareSection, *, machine: Machine
) -> str:
    """A hash of all that a measurement depends on: job, user code, versions, device, machine."""
    content = {
        "compare": compare.model_dump(mode="json"),
        "strategies": [_told(one) for one in planned],
        "user_code": next((code for one in planned if (code := user_code(one.plan))), []),
        "data": sorted({file for one in planned for file in _data_files(one)}),
        "versions": versions(),
        "python": platform.python_version(),
        "machine": [machine.name, machine.n_cpus, machine.n_gpus, platform.node()],
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _data_files(one: PlannedStrategy) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time of change of the user's text files that a strategy trains on."""
    data = one.plan.spec.data
    if isinstance(data, TextData) and data.path is not None:
        place = one.plan.folder / data.path
        for path in [place] if place.is_file() else place.rglob("*"):
            # Whoever reads it says what is wrong with it.
            with contextlib.suppress(OSError):
                facts = path.stat()
                yield str(path), facts.st_size, facts.st_mtime_ns


def _told(one: PlannedStrategy) -> dict[str, Any]:
    return {
        "name": one.name,
        "job": one.job.spec.model_dump(mode="json"),
        "deepspeed": one.plan.deepspeed,
        "resources": asdict(one.plan.resources),
    }


def _state(path: Path) -> State:
    values = json.loads((path / "state.json").read_text(encoding="utf-8"))
    try:
        return State(**{**values, "strategies": tuple(values["strategies"])})
    except (KeyError, TypeError) as err:
        raise ValueError(f"{path} holds no comparison: {err}") from err


def _locked(path: Path) -> IO[str] | None:
    """Hold a folder; `None` where another process does."""
    file = (path / "lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file
