"""Ctrl-C, `kill` and a closed terminal: the first ends what runs in order, later ones wait for it.

Touches the signal handlers of this process, which belong to its main thread.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 30.0
"""A signal so long after the first is taken as the first was: cleaning up may hang."""


class StopSignals:
    """While entered, the first of `SIGNALS` raises KeyboardInterrupt; those after it only speak.

    A signal that is ignored, as `nohup` does with SIGHUP, stays ignored.

    Args:
        show: takes a line for the user, inside a signal handler.
    """

    def __init__(self, *, show: Callable[[str], None]) -> None:
        self._show = show
        self._first: signal.Signals | None = None
        self._first_s = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int | None:
        """What a shell expects of a program that a signal ended: 130, 143, 129; `None`: none did.

        Source:
            POSIX.1-2024, Shell Command Language, 2.8.2: greater than 128; 128 + number in practice.
        """
        return None if self._first is None else 128 + self._first

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if (before := signal.getsignal(number)) != signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first is not None and now_s - self._first_s < PATIENCE_S:
            self._show("still stopping; a moment")
            return
        self._first, self._first_s = signal.Signals(number), now_s
        self._show("stopping; this takes some seconds")
        raise KeyboardInterrupt


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers of `SIGNALS` back after a library has taken them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_held_back(*, show: Callable[[str], None]) -> Iterator[None]:
    """Let nothing tear apart what must be finished; it must take seconds at most."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        show("finishing what is recorded; a moment")

    with signals_kept():
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, note)
        yield
