"""The probe of resident memory: one step in which the process's peak is taken phase by phase.

A step of its own, since tracing and profiling take memory themselves.
"""

from orchestrator.measure.sample import ResidentMemory
from orchestrator.worker.probes.process_memory import (
    proportional_bytes,
    resident_bytes,
    resident_peak_bytes,
    start_window,
)


class ResidentProbe:
    """Looks at one step; `enter` each phase, then `result`."""

    def __init__(self) -> None:
        """Give back what is free and begin."""
        self._phase: str | None = None
        self._windows = start_window()
        self._start_bytes = resident_bytes() or 0
        self._peak_bytes: dict[str, int] = {}
        self._pss_bytes: dict[str, int] = {}

    def enter(self, phase: str) -> None:
        """A phase begins; if it is a new one, the one before is closed."""
        if phase == self._phase:
            return
        self._close()
        self._phase = phase

    def result(self) -> ResidentMemory:
        """Close the last phase and sum up."""
        self._close()
        return ResidentMemory(
            start_bytes=self._start_bytes,
            peak_bytes=self._peak_bytes if self._windows else {},
            pss_bytes=self._pss_bytes,
        )

    def _close(self) -> None:
        if self._phase is None:
            return
        if (peak := resident_peak_bytes()) is not None:
            self._peak_bytes[self._phase] = max(self._peak_bytes.get(self._phase, 0), peak)
        if (proportional := proportional_bytes()) is not None:
            self._pss_bytes[self._phase] = proportional
        self._windows = start_window() and self._windows
