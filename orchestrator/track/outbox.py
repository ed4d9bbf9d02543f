"""The outbox: everything a run has to tell the tracking store, in the run's folder.

    start.json      experiment, name, parameters, tags       written first
    records.jsonl   the spool                                grows while the run runs
    artifacts/      files to keep                            each put in place whole
    finish.json     status, end and summary points           written last
    delivered.json  how much of it the store has             written by the deliverer alone

It is the durable queue before the store: an outage or a crash loses nothing, and delivery can go on
later from another process.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.measure.points import MetricPoint
from orchestrator.track.base import RunStart, RunStatus, TrackedRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a run ended."""

    status: RunStatus
    end_time_ms: int
    points: tuple[MetricPoint, ...]
    """The summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """How much the store has."""

    run: TrackedRun | None = None
    n_points: int = 0
    """Points made from the spool, in its order, that are delivered."""
    files: dict[str, str] = field(default_factory=dict)
    """Artifact -> version of the file that is delivered."""
    finished: bool = False
    goes_on: bool = False
    """The run had ended and goes on, which the store is still to be told."""


class Outbox:
    """A run's folder, seen as what is to be delivered."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder; nothing is read or written yet."""
        self.folder = folder
        self.spool_path = folder / "records.jsonl"
        self.artifacts = folder / "artifacts"

    @classmethod
    def create(cls, folder: Path, start: RunStart) -> "Outbox":
        """Make the folder of a run that starts.

        Raises:
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        outbox = cls(folder)
        _put(folder / "start.json", start.to_json())
        return outbox

    def start(self) -> RunStart:
        """What the run is called.

        Raises:
            OSError: the folder holds no run.
        """
        return RunStart(**_get(self.folder / "start.json"))

    def add_text(self, name: str, text: str) -> None:
        """Keep a text as an artifact; see `add_bytes`."""
        self.add_bytes(name, text.encode())

    def add_bytes(self, name: str, content: bytes) -> None:
        """Keep an artifact; an earlier one of the name is replaced.

        Args:
            name: relative path with slashes, such as `logs/rank_03.txt`.
            content: of the file.

        Raises:
            ValueError: the name leads out of the folder.
            OSError: it cannot be written.
        """
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"artifact {name!r} is no relative path")
        target = self.artifacts / path
        target.parent.mkdir(parents=True, exist_ok=True)
        _put_bytes(target, content)

    def files(self) -> dict[str, str]:
        """Artifact -> version; a version changes when the file does."""
        found = {}
        for path in sorted(self.artifacts.rglob("*")):
            if path.is_file() and path.suffix != _PARTIAL:
                stat = path.stat()
                name = path.relative_to(self.artifacts).as_posix()
                found[name] = f"{stat.st_size}-{stat.st_mtime_ns}"
        return found

    def finish(
        self, *, status: RunStatus, end_time_ms: int, points: Sequence[MetricPoint] = ()
    ) -> None:
        """Say how the run ended; after this no record and no artifact may come.

        Raises:
            OSError: it cannot be written.
        """
        finish = Finish(status=status, end_time_ms=end_time_ms, points=tuple(points))
        _put(self.folder / "finish.json", asdict(finish))

    def reopen(self) -> None:
        """Let a run that had ended go on.

        Raises:
            OSError: it cannot be written.
        """
        # In this order: what is cut short after the first is an end that is told once more.
        self.note_delivered(replace(self.delivered(), finished=False, goes_on=True))
        (self.folder / "finish.json").unlink(missing_ok=True)

    def finished(self) -> Finish | None:
        """How the run ended; `None` while it runs or if it was killed."""
        try:
            values = _get(self.folder / "finish.json")
        except FileNotFoundError:
            return None
        points = tuple(MetricPoint(**point) for point in values.pop("points"))
        return Finish(points=points, **values)

    def delivered(self) -> Delivered:
        """How much the store has; nothing if that was never written down, or is damaged."""
        try:
            values = _get(self.folder / "delivered.json")
        except (FileNotFoundError, ValueError):
            # Sending everything again is harmless.
            return Delivered()
        run = values.pop("run")
        return Delivered(run=TrackedRun(**run) if run else None, **values)

    def note_delivered(self, delivered: Delivered) -> None:
        """Write down how much the store has."""
        _put(self.folder / "delivered.json", asdict(delivered))


_PARTIAL = ".partial"


def _get(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _put(path: Path, values: dict[str, Any]) -> None:
    _put_bytes(path, json.dumps(values, indent=1).encode())


def _put_bytes(path: Path, content: bytes) -> None:
    # A reader in another thread or process sees the old file or the new one, never half of it.
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_bytes(content)
    os.replace(partial, path)
