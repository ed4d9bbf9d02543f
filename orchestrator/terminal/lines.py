"""Lines that stay, and one that changes: on a terminal in place, elsewhere every few seconds."""

import contextlib
import os
import time
from typing import TextIO


class StatusLines:
    """Writes to one stream; a reader that goes away ends nothing."""

    EVERY_S = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._shown_s = 0.0
        self._pending = False

    def say(self, line: str) -> None:
        """Write a line that stays."""
        if self._live and self._pending:
            self._put("\n")
        self._pending = False
        self._put(f"{line}\n")

    def replace(self, line: str) -> None:
        """Write a line that stays, in place of the one that changes."""
        if self._live and self._pending:
            self._put("\r\x1b[2K")
        self._pending = False
        self._put(f"{line}\n")

    def update(self, line: str) -> None:
        """Change the line that changes."""
        if self._live:
            self._pending = True
            self._put(f"\r\x1b[2K{line[: self._room()]}")
        elif time.monotonic() - self._shown_s >= self.EVERY_S:
            self._shown_s = time.monotonic()
            self._put(f"{line}\n")

    def close(self) -> None:
        """Leave the last line standing."""
        if self._live and self._pending:
            self._put("\n")
        self._pending = False

    def _room(self) -> int | None:
        """Characters of a line that does not wrap: of a wrapped one only the end is replaced."""
        try:
            return max(1, os.get_terminal_size(self._out.fileno()).columns - 1)
        except (OSError, ValueError):
            return None

    def _put(self, text: str) -> None:
        # A reader that went away must not end the run that it read of.
        with contextlib.suppress(OSError):
            self._out.write(text)
            self._out.flush()
