"""What a comparison keeps of itself: its own run in the tracking store, its state, its report."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.compare.ranking import Ranking
from orchestrator.compare.strategies import varied_keys
from orchestrator.errors import UsageError
from orchestrator.launch.comparison.contestant import Contestant
from orchestrator.launch.comparison.folder import ComparisonFolder, State
from orchestrator.launch.comparison.report import (
    COMPARISON_DOCUMENT,
    CONTROLS_DOCUMENT,
    Reported,
    rank_entries,
    took,
    write_report,
)
from orchestrator.launch.comparison.stint import control_losses
from orchestrator.launch.open_run import Setting, circumstances
from orchestrator.spec.load import JobFile
from orchestrator.track.base import COMPARISON, KIND_TAG, RunStart, TrackedRun
from orchestrator.track.outbox import Outbox
from orchestrator.track.writer import TrackingWriter

DELIVERY_TIMEOUT_S = 120.0
IMPATIENT_DELIVERY_TIMEOUT_S = 30.0
"""After Ctrl-C; what is not delivered by then stays in the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A comparison that is over, or was interrupted."""

    reported: Reported
    contestants: tuple[Contestant, ...]
    folder: Path
    interrupted: bool
    tracked: TrackedRun | None
    """Where the tracking store has it; `None` when the store could not be reached."""
    n_unsent: int
    seconds: float


class ComparisonRecord:
    """A comparison's own run, begun once and ended once in a command.

    Args:
        job: the file, kept with it.
        contestants: its strategies.
        folder: where it lies.
        setting: its circumstances.
    """

    def __init__(
        self,
        job: JobFile,
        contestants: Sequence[Contestant],
        *,
        folder: ComparisonFolder,
        setting: Setting,
    ) -> None:
        self._job = job
        self._contestants = tuple(contestants)
        self._folder = folder
        self._setting = setting
        self._outbox = Outbox(folder.path)
        self._writer = TrackingWriter(self._outbox, open_tracker=setting.open_tracker)

    @property
    def baseline(self) -> Contestant:
        """What the others are held against, if it runs to its end."""
        asked = None if self._job.spec.compare is None else self._job.spec.compare.baseline
        named = [one for one in self._contestants if one.name == asked]
        return named[0] if named else self._contestants[0]

    def begin(self, given_up: Sequence[Outbox]) -> None:
        """Begin its run, or go on with it, and deliver from now on.

        Args:
            given_up: attempts of an earlier command whose end the store is to hear of.

        Raises:
            UsageError: the folder cannot be written.
        """
        try:
            if (self._folder.path / "start.json").is_file():
                self._outbox.reopen()
            else:
                Outbox.create(self._folder.path, self._start())
                self._outbox.add_text("job.yaml", self._job.text)
                self._write_state(complete=False, spent_s=0.0)
        except OSError as err:
            folder = self._folder.path
            raise UsageError(f"comparison {folder} cannot be written: {err.strerror}") from err
        for outbox in [*given_up, *(one.outbox for one in self._contestants if one.is_begun)]:
            self._writer.add(outbox)
        self._writer.start()

    def add(self, outbox: Outbox) -> None:
        """Deliver the run of one more strategy."""
        self._writer.add(outbox)

    def end(
        self, *, interrupted: bool, spent_s: float, delivery_timeout_s: float = DELIVERY_TIMEOUT_S
    ) -> Compared:
        """Write the report, close the run and deliver what is left.

        Args:
            interrupted: it is to be gone on with.
            spent_s: what this command took.
            delivery_timeout_s: longest wait for a tracking store that is away.

        Raises:
            OSError: the report cannot be written.
        """
        seconds = self._folder.state().spent_s + spent_s
        self._keep_how_it_was_judged()
        reported = write_report(
            self._outbox,
            self._ranking(),
            name=self._job.spec.name,
            controls=self._controls(),
            told=[took(seconds)],
            plots=not interrupted,
        )
        self._write_state(complete=not interrupted, spent_s=seconds)
        failed = any(one.has_failed for one in self._contestants)
        self._outbox.finish(
            status="KILLED" if interrupted else "FAILED" if failed else "FINISHED",
            end_time_ms=int(time.time() * 1000),
        )
        patience_s = IMPATIENT_DELIVERY_TIMEOUT_S if interrupted else math.inf
        n_unsent = self._writer.close(timeout_s=min(delivery_timeout_s, patience_s))
        return Compared(
            reported=replace(reported, ranking=self._with_run_ids(reported.ranking)),
            contestants=self._contestants,
            folder=self._folder.path,
            interrupted=interrupted,
            tracked=self._writer.run,
            n_unsent=n_unsent,
            seconds=seconds,
        )

    def _ranking(self) -> Ranking:
        return rank_entries(
            [entry for one in self._contestants if (entry := one.entry()) is not None],
            baseline=self.baseline.name,
            controls=self._controls(),
            varied=self._varied,
        )

    @property
    def _varied(self) -> tuple[str, ...]:
        return varied_keys([one.planned.strategy.changes for one in self._contestants])

    def _keep_how_it_was_judged(self) -> None:
        """Keep what a later report of these runs needs to judge them alike."""
        told = {
            "name": self._job.spec.name,
            "baseline": self.baseline.name,
            "varied": list(self._varied),
            "strategies": [one.name for one in self._contestants],
        }
        self._outbox.add_text(COMPARISON_DOCUMENT, json.dumps(told, indent=1) + "\n")
        self._outbox.add_text(CONTROLS_DOCUMENT, json.dumps(self._controls()) + "\n")

    def _with_run_ids(self, ranking: Ranking) -> Ranking:
        """The ranking once more, now that the store has told what it calls the runs."""
        entries = {one.name: entry for one in self._contestants if (entry := one.entry())}
        rows = tuple(replace(row, entry=entries[row.name]) for row in ranking.rows)
        return replace(ranking, rows=rows)

    def _controls(self) -> dict[str, tuple[float, ...]]:
        record = self.baseline.record
        if record is None or not record.losses:
            return {}
        return control_losses(self._folder, baseline_losses=record.losses)

    def _start(self) -> RunStart:
        spec = self._job.spec
        tags = circumstances(self._job.path, setting=self._setting)
        return RunStart(
            key=self._folder.key,
            experiment=spec.tracking.experiment or spec.name,
            name=f"{spec.name} comparison",
            start_time_ms=int(self._setting.started_unix_s * 1000),
            params={"strategies": ", ".join(one.name for one in self._contestants)},
            tags={**tags, KIND_TAG: COMPARISON},
        )

    def _write_state(self, *, complete: bool, spent_s: float) -> None:
        self._folder.write(
            State(
                name=self._job.spec.name,
                fingerprint=self._folder.fingerprint,
                started_unix_s=self._setting.started_unix_s,
                strategies=tuple(one.name for one in self._contestants),
                complete=complete,
                spent_s=spent_s,
            )
        )
