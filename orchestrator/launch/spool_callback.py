"""The controller's pen: every rank's records go into the run's spool as they are reported.

Runs in Ray Train's controller, where an exception would end the run: what cannot be written is
said once, and the run goes on.
"""

import logging
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from orchestrator.launch.unsent import in_time
from orchestrator.measure.sample import record_from_json
from orchestrator.track.spool import SpoolWriter

log = logging.getLogger(__name__)


class SpoolCallback(UserCallback):  # type: ignore[misc]
    """Appends to one spool file."""

    def __init__(self, spool_path: Path) -> None:
        self._spool_path = spool_path
        self._failed = False

    def after_report(
        self,
        run_context: Any,  # noqa: ARG002 - Ray Train passes them by name
        metrics: list[dict[str, Any]],
        checkpoint: Any,  # noqa: ARG002
    ) -> None:
        """Keep what all ranks reported together."""
        try:
            told = [
                record_from_json(values)
                for report in metrics
                for values in report.get("records", ())
            ]
            with SpoolWriter(self._spool_path) as spool:
                for record in sorted(told, key=in_time):
                    spool.append(record)
        except (OSError, ValueError) as err:
            if not self._failed:
                log.error("records cannot be kept in %s: %s", self._spool_path, err)
            self._failed = True
