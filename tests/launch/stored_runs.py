"""Runs as a tracking store has them: made up entries, told through the outbox as a launch does."""

import json
from pathlib import Path
from typing import Any

from orchestrator.compare.entry import ENVIRONMENT, PLAN, SUMMARY, THROUGHPUT, Entry
from orchestrator.track.base import COMPARISON, KIND_TAG, RunStart, RunStatus, Tracker
from orchestrator.track.delivery import Delivery
from orchestrator.track.outbox import Outbox

FIRST_MS = 1_795_600_800_000
"""Some day of 2026, of which every minute of the next hour is a minute of the same day."""


def documents(entry: Entry) -> dict[str, Any]:
    """What a run of such an outcome keeps."""
    rounds = [
        {"round": n, "samples_per_s": list(speeds)} for n, speeds in enumerate(entry.rounds, 1)
    ]
    return {
        PLAN: {
            "strategy": entry.strategy,
            "job": entry.job,
            "resources": {"device": entry.device},
            "batch": {
                "global_batch_size": entry.global_batch_size,
                "micro_batch_size": entry.micro_batch_size,
                "accumulation_steps": entry.accumulation_steps,
                "workers": entry.workers,
            },
            "n_params": entry.n_params,
        },
        SUMMARY: entry.record.to_json(),
        THROUGHPUT: {"rounds": rounds},
        ENVIRONMENT: {"commit": entry.commit},
    }


class Shelf:
    """Puts runs into a store, a minute after one another.

    Args:
        tracker: the store.
        folder: where outboxes lie meanwhile.
        experiment: what runs are put in.
    """

    def __init__(self, tracker: Tracker, folder: Path, *, experiment: str = "question") -> None:
        self._tracker = tracker
        self._folder = folder
        self._experiment = experiment
        self._prefix = experiment.replace("/", ".")
        self._n_runs = 0

    def put(  # noqa: PLR0913 - each is a knob of its own
        self,
        entry: Entry | None,
        *,
        name: str | None = None,
        user: str | None = "alice",
        status: RunStatus | None = "FINISHED",
        parent: str | None = None,
        minutes: int | None = None,
        files: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
    ) -> str:
        """Put a run there; gives its id.

        Args:
            entry: what it came to; `None`: it keeps no documents.
            name: what it is called; `None`: as its job, as a launch is.
            user: who ran it.
            status: how it ended; `None`: it has not.
            parent: key of the comparison it is part of.
            minutes: when it began; `None`: a minute after the last one.
            files: documents beside those of the entry, or instead.
            tags: beside the user's.
        """
        self._n_runs += 1
        at = self._n_runs if minutes is None else minutes
        start = RunStart(
            key=f"{self._prefix}-{self._n_runs}",
            experiment=self._experiment,
            name=name or (str(entry.job["name"]) if entry else "nameless"),
            start_time_ms=FIRST_MS + at * 60_000,
            tags={**({"mlflow.user": user} if user else {}), **(tags or {})},
            parent_key=parent,
        )
        outbox = Outbox.create(self._folder / start.key, start)
        for file, value in {**(documents(entry) if entry else {}), **(files or {})}.items():
            outbox.add_text(file, value if isinstance(value, str) else json.dumps(value))
        if status is not None:
            outbox.finish(status=status, end_time_ms=start.start_time_ms + 1)
        delivery = Delivery(outbox)
        delivery.send(self._tracker)
        assert delivery.run is not None
        return delivery.run.run_id

    def put_comparison(self, *, files: dict[str, Any] | None = None) -> tuple[str, str]:
        """Put a comparison there, its strategies to follow; gives its id and its key."""
        tags = {KIND_TAG: COMPARISON}
        run_id = self.put(None, name="made-up comparison", files=files, tags=tags)
        return run_id, f"{self._prefix}-{self._n_runs}"
