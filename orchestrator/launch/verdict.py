"""How the ranks of a Ray run ended: what Ray says of them, joined with what they left behind.

Reads the run's spool, the ranks' logs and what they had not reported yet; imports no Ray.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from orchestrator.launch.base import Launch
from orchestrator.launch.failure import RankError, RankRaisedError, RunError, judge
from orchestrator.launch.unsent import unsent_records
from orchestrator.measure.sample import RankDone, RankFacts, RankSample
from orchestrator.track.spool import records_in

DIED = "WorkerDiedError"
_FATAL = re.compile(r"\*\*\* (SIG[A-Z]+) received|Fatal Python error: ([A-Za-z -]+)")
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
    "Illegal instruction": "SIGILL",
}


def rank_error(rank: int, error: BaseException) -> RankError:
    """Say as plain text what a rank ended with.

    Args:
        rank: which one.
        error: as Ray Train has it: what the rank raised, or a failed health check.
    """
    if isinstance(error, RankRaisedError):
        return error.error
    death = getattr(error, "health_check_failure", None)
    if death is None:
        return RankError(rank=rank, kind=type(error).__name__, message=str(error))
    out_of_memory = "OutOfMemory" in type(death).__name__
    return RankError(
        rank=rank, kind="OutOfMemoryError" if out_of_memory else DIED, message=str(death)
    )


def verdict(errors: Mapping[int, RankError], launch: Launch) -> RunError:
    """Judge a run that ended early.

    Args:
        errors: rank -> what Ray says it ended with; at least one.
        launch: whose records and logs tell the rest.
    """
    steps, pids = _told(launch)
    told = {
        rank: replace(
            error,
            pid=pids.get(rank),
            signal_name=signal_of(launch.log_folder / f"rank_{rank:02d}.log")
            if error.kind == DIED
            else None,
        )
        for rank, error in errors.items()
    }
    return RunError(judge(told, last_steps=steps))


def unfinished(launches: Sequence[Launch]) -> Launch:
    """The first launch of a group that not every rank has said to be done with, or else the last.

    What ranks have not reported yet is looked at too.
    """
    for launch in launches:
        n_ranks = launch.plan.resources.workers
        if len(ranks_done(launch)) < n_ranks:
            return launch
    return launches[-1]


def last_steps(launch: Launch) -> dict[int, int]:
    """Rank -> the last step it told of."""
    return _told(launch)[0]


def ranks_done(launch: Launch) -> set[int]:
    """The ranks that are done with a launch."""
    told = chain(records_in(launch.spool_path), unsent_records(launch.log_folder))
    return {record.rank for record in told if isinstance(record, RankDone)}


def signal_of(log_path: Path) -> str | None:
    """The signal a dead rank's own log names; SIGKILL leaves no word, so silence means that.

    Returns:
        Its name; `None` where there is no log.
    """
    try:
        text = log_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    names = [first or _SIGNALS.get(second.strip()) for first, second in _FATAL.findall(text)]
    return next((name for name in reversed(names) if name), "SIGKILL")


def _told(launch: Launch) -> tuple[dict[int, int], dict[int, int]]:
    """Last step and process id of every rank, reported or not."""
    last_steps: dict[int, int] = {}
    pids: dict[int, int] = {}
    for record in chain(records_in(launch.spool_path), unsent_records(launch.log_folder)):
        if isinstance(record, RankSample):
            last_steps[record.rank] = max(record.step, last_steps.get(record.rank, 0))
        elif isinstance(record, RankFacts):
            pids[record.rank] = record.pid
    return last_steps, pids
