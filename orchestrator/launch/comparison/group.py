"""One group of ranks that runs launch after launch: followed, and ended when it hangs."""

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.launch.base import Launch, Launcher
from orchestrator.launch.compiled_ops import BUILD_TIMEOUT_S
from orchestrator.launch.failure import Failure
from orchestrator.launch.follow import Follower
from orchestrator.launch.run import how_it_ended
from orchestrator.launch.stop_signals import signals_held_back
from orchestrator.launch.unsent import forget_unsent, take_over_unsent
from orchestrator.launch.verdict import last_steps
from orchestrator.measure.run_record import Outcome
from orchestrator.measure.sample import Record
from orchestrator.units import as_duration

START_PATIENCE_S = 300.0
"""Longest until anything is heard of a group: its processes start and import meanwhile."""
WATCH_EVERY_S = 1.0

log = logging.getLogger(__name__)


class GroupLauncher(Launcher, Protocol):
    """A launcher whose group can be ended from outside."""

    @property
    def compiles(self) -> bool:
        """Whether ranks may have to compile DeepSpeed's ops before they train."""
        ...

    def abort(self) -> None:
        """End a `run` that another thread waits for; it then raises `RunError`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEnd:
    """How a group of ranks ended."""

    n_done: int
    """Launches that every rank is done with; the next one is where it ended early."""
    outcome: Outcome
    failure: Failure | None


def run_group(
    launches: Sequence[Launch],
    *,
    launcher: GroupLauncher,
    on_record: Callable[[int, Record], None],
    on_done: Callable[[int], None],
    hang_timeout_s: float,
) -> GroupEnd:
    """Run launches one after another in one group of ranks, to their end or to the first failure.

    Args:
        launches: at least one, of one `group_key`.
        launcher: where.
        on_record: takes the number of a launch and a record, in a thread of its own.
        on_done: told the number of a launch that every rank is done with, in the same thread.
        hang_timeout_s: after so long without a word from any rank, they hang.

    Raises:
        Exception: a function that was told something raised it; the ranks are ended.
    """
    follower = Follower([one.spool_path for one in launches], hand_on=on_record, on_whole=on_done)
    watch = _Watch(follower, launcher, launches, timeout_s=hang_timeout_s)
    follower.start()

    def run() -> None:
        with watch:
            launcher.run(launches)

    outcome, failure = how_it_ended(run)
    # What is left of a Ray run is freed here: another thread that came to free it while Ray is
    # being shut down would end this process.
    gc.collect()
    with signals_held_back(show=log.warning):
        if failure is not None:
            for one in launches:
                take_over_unsent(one.log_folder, spool_path=one.spool_path)
        follower.stop()
        for one in launches:
            forget_unsent(one.log_folder)
    n_done = follower.n_done
    if n_done < len(launches):
        if watch.has_aborted and outcome != "interrupted":
            outcome, failure = "failed", _hung(launches[n_done], after_s=hang_timeout_s)
        elif failure is None:
            outcome, failure = "failed", _unheard(launches[n_done])
    return GroupEnd(n_done=n_done, outcome=outcome, failure=failure)


class _Watch:
    """A thread that ends a group of which nothing is heard, or to which nobody listens."""

    def __init__(
        self,
        follower: Follower,
        launcher: GroupLauncher,
        launches: Sequence[Launch],
        *,
        timeout_s: float,
    ) -> None:
        self._follower = follower
        self._launcher = launcher
        self._launches = launches
        self._timeout_s = timeout_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="hang-watch", daemon=True)
        self.has_aborted = False

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(WATCH_EVERY_S):
            if self._follower.error is not None:
                self._abort()
            elif self._hangs():
                self.has_aborted = True
                self._abort()

    def _hangs(self) -> bool:
        heard = self._follower.has_heard
        patience_s = self._timeout_s if heard else max(self._timeout_s, START_PATIENCE_S)
        if self._follower.silent_s <= patience_s:
            return False
        under_way = self._launches[min(self._follower.n_done, len(self._launches) - 1)]
        if self._launcher.compiles and not last_steps(under_way):
            patience_s += BUILD_TIMEOUT_S * len(under_way.plan.compiled_ops)
            if self._follower.silent_s <= patience_s:
                return False
        # Ranks whose steps are slow tell of several at once.
        return time.time() - _last_kept_unix_s(under_way.log_folder) > patience_s

    def _abort(self) -> None:
        try:
            self._launcher.abort()
        except Exception as err:  # noqa: BLE001
            # The outermost frame of this thread; it tries again.
            log.warning("the ranks cannot be ended: %s: %s", type(err).__name__, err)


def _last_kept_unix_s(log_folder: Path) -> float:
    """When a rank last kept something that it has not told yet; 0 where none has."""
    newest = 0.0
    for path in log_folder.glob("*.unsent-*"):
        # Told meanwhile.
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, path.stat().st_mtime)
    return newest


def _unheard(launch: Launch) -> Failure:
    """Say that ranks ended well of which not everything was heard."""
    message = (
        f"its ranks ended well, but not all that they told came into {launch.spool_path}; "
        "see that the disk has room, and run it again"
    )
    return Failure(outcome="failed", rank=None, step=None, message=message, details="")


def _hung(launch: Launch, *, after_s: float) -> Failure:
    """Say which rank stands still, as far as their last steps tell."""
    steps = last_steps(launch)
    n_ranks = launch.plan.resources.workers
    reached = {rank: steps.get(rank, 0) for rank in range(n_ranks)}
    first = min(reached.values())
    behind = [rank for rank, step in reached.items() if step == first]
    where = f"after step {first}" if first else "before its first step"
    who = "no rank" if len(behind) == n_ranks else f"rank {behind[0]}"
    does = "goes on" if who == "no rank" else "does not go on"
    message = (
        f"it hangs: {who} {does} {where}, and nothing was heard for {as_duration(after_s)}; "
        "look at what the model or the data wait for there, or raise compare.hang_timeout_s"
    )
    return Failure(
        outcome="failed",
        rank=None if len(behind) == n_ranks else behind[0],
        step=first or None,
        message=message,
        details=f"last step of each rank: {reached}",
    )
