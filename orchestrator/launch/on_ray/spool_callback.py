"""The controller's pen: every rank's records go into the spool of their run as they are reported.

Runs in Ray Train's controller, where an exception would end the run: what cannot be written is
said once, and the run goes on.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from orchestrator.launch.unsent import in_time
from orchestrator.measure.sample import Record
from orchestrator.measure.sample_json import record_from_json
from orchestrator.track.spool import SpoolWriter

log = logging.getLogger(__name__)


class SpoolCallback(UserCallback):  # type: ignore[misc]
    """Appends to one spool file for each run of a group."""

    def __init__(self, spool_paths: Sequence[Path]) -> None:
        self._spool_paths = tuple(spool_paths)
        self._failed = False

    def after_report(
        self,
        run_context: Any,  # noqa: ARG002 - Ray Train passes them by name
        metrics: list[dict[str, Any]],
        checkpoint: Any,  # noqa: ARG002
    ) -> None:
        """Keep what all ranks reported together."""
        try:
            told: dict[int, list[Record]] = defaultdict(list)
            for report in metrics:
                for values in report.get("records", ()):
                    told[int(report["run"])].append(record_from_json(values))
            for run, records in told.items():
                with SpoolWriter(self._spool_paths[run]) as spool:
                    for record in sorted(records, key=in_time):
                        spool.append(record)
        except (OSError, ValueError) as err:
            if not self._failed:
                log.error("records cannot be kept in %s: %s", self._spool_paths[0].parent, err)
            self._failed = True
