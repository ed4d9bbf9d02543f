"""The voice of this program, apart from its libraries'."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class Voice:
    """Where this program talks to a person, whatever its libraries do with stdout and stderr."""

    def __init__(self) -> None:
        self.out: TextIO = sys.stdout
        self.err: TextIO = sys.stderr

    def note(self, text: str) -> None:
        """Write a line to stderr past Python's buffers, as a signal handler must."""
        with contextlib.suppress(OSError):
            os.write(self.err.fileno(), f"{text}\n".encode())

    @contextlib.contextmanager
    def libraries_write_to(self, path: Path | None) -> Iterator[None]:
        """Send what anything but this voice writes to a file, C++ and child processes included.

        Args:
            path: the file; `None` lets them talk to the terminal.

        Raises:
            OSError: the file cannot be written.
        """
        if path is None:
            yield
            return
        before = self.out, self.err
        kept = [os.dup(1), os.dup(2)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            _redirect([log.fileno(), log.fileno()])
        self.out, self.err = (
            os.fdopen(copy, "w", buffering=1, closefd=False) if _writes_to(stream, fd) else stream
            for stream, fd, copy in zip(before, (1, 2), kept, strict=True)
        )
        try:
            yield
        finally:
            self.out, self.err = before
            _redirect(kept)
            for fd in kept:
                os.close(fd)


@contextlib.contextmanager
def said_aloud(voice: Voice, *, verbose: bool) -> Iterator[None]:
    """Say what this package logs; other packages' words are theirs.

    Args:
        voice: says it.
        verbose: say also what goes well.
    """
    handler = _VoiceHandler(voice)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    log = logging.getLogger("orchestrator")
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _VoiceHandler(logging.Handler):
    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice

    def emit(self, record: logging.LogRecord) -> None:
        self._voice.note(self.format(record))


def _writes_to(stream: TextIO, fd: int) -> bool:
    """Whether a stream ends there; one that a caller put in its place is left to the caller."""
    try:
        return stream.fileno() == fd
    except OSError:
        return False


def _redirect(targets: list[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for fd, target in zip((1, 2), targets, strict=True):
        os.dup2(target, fd)
