"""The terminal: the voice of this program, apart from its libraries', and a run's progress."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from orchestrator.measure.sample import EvalResult, RankFacts, RankSample, Record
from orchestrator.units import as_duration


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


@dataclass(slots=True)
class Progress:
    """Turns records into lines worth showing; keeps only the newest."""

    total_steps: int = 0
    world_size: int = 1
    _losses: dict[int, dict[int, float]] = field(default_factory=dict)
    _rates: list[float] = field(default_factory=list)

    def line(self, record: Record) -> str | None:
        """A line for a record that is worth one; else `None`."""
        if isinstance(record, RankFacts):
            self.total_steps, self.world_size = record.total_steps, record.world_size
            if record.rank:
                return None
            startup = ", ".join(f"{part} {s:.1f}" for part, s in record.startup_s.items())
            return (
                f"Rank 0 of {record.world_size} is ready on {record.node} ({record.device}): "
                f"{record.n_train_samples:,} samples to train on, {record.n_eval_samples:,} to "
                f"evaluate on (seconds: {startup})"
            )
        if isinstance(record, EvalResult):
            accuracy = "" if record.accuracy is None else f", accuracy {record.accuracy:.2%}"
            return f"Evaluation after step {record.step}: loss {record.loss:.4f}{accuracy}"
        return None

    def step(self, record: RankSample) -> str | None:
        """The state of the run once every rank has reported a step."""
        losses = self._losses.setdefault(record.step, {})
        losses[record.rank] = record.loss
        if record.rank == 0 and not record.probe:
            self._rates = [*self._rates[-19:], record.step_s]
        if len(losses) < self.world_size:
            return None
        del self._losses[record.step]
        mean_loss = sum(losses.values()) / len(losses)
        width = len(str(self.total_steps))
        text = f"step {record.step:>{width}}/{self.total_steps}  loss {mean_loss:.4f}"
        if self._rates:
            step_s = sorted(self._rates)[len(self._rates) // 2]
            rate = record.n_samples * self.world_size / step_s
            left = as_duration((self.total_steps - record.step) * step_s)
            text += f"  {rate:,.1f} samples/s  {left} left"
        return text


class Display:
    """Progress on a terminal as one line that changes, elsewhere as a line every few seconds."""

    EVERY_S = 5.0

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._progress = Progress()
        self._shown_s = 0.0
        self._pending: str | None = None

    def show(self, record: Record) -> None:
        """Show what a record tells, if it is worth a line now."""
        if not isinstance(record, RankSample):
            line = self._progress.line(record)
            if line is not None:
                self._write(line)
            return
        line = self._progress.step(record)
        if line is None:
            return
        self._pending = line
        if self._live:
            self._put(f"\r\x1b[2K{line}")
        elif time.monotonic() - self._shown_s >= self.EVERY_S:
            self._shown_s = time.monotonic()
            self._write(line)

    def close(self) -> None:
        """Leave the last line standing."""
        if self._pending is not None and self._live:
            self._put("\n")

    def _write(self, line: str) -> None:
        if self._live and self._pending is not None:
            self._put("\n")
            self._pending = None
        self._put(f"{line}\n")

    def _put(self, text: str) -> None:
        # A reader that went away must not end the run that it read of.
        with contextlib.suppress(OSError):
            self._out.write(text)
            self._out.flush()
