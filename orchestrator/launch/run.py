"""One run from its plan to its record: started, followed, tracked, summed up, whatever happens."""

import logging
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import InfeasibleError, OrchestratorError
from orchestrator.forecast.receipts import Receipt
from orchestrator.launch.base import Launch, Launcher, rank_environment
from orchestrator.launch.failure import Failure, RunError
from orchestrator.launch.follow import Follower
from orchestrator.launch.open_run import Setting, note_failure, open_run, run_start, seal, settle
from orchestrator.launch.stop_signals import signals_held_back
from orchestrator.launch.unsent import forget_unsent, take_over_unsent
from orchestrator.measure.run_record import Outcome, RunRecord
from orchestrator.measure.sample import Record
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.load import JobFile
from orchestrator.track.base import TrackedRun
from orchestrator.track.writer import TrackingWriter

DELIVERY_TIMEOUT_S = 60.0
IMPATIENT_DELIVERY_TIMEOUT_S = 20.0
"""After Ctrl-C; what is not delivered by then stays in the run folder."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run that is over."""

    record: RunRecord
    failure: Failure | None
    folder: Path
    tracked: TrackedRun | None
    """Where the tracking store has it; `None` when the store could not be reached."""
    n_unsent: int
    """Metric points that the tracking store has not got; they lie in the run folder."""
    receipt: Receipt | None
    """Forecast and measurement of one rank."""


def run_plan(
    plan: LaunchPlan,
    job: JobFile,
    *,
    launcher: Launcher,
    setting: Setting,
    on_record: Callable[[Record], None],
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
) -> Finished:
    """Run a plan to its end; never raises for what happens inside the run.

    Args:
        plan: what to run.
        job: the file it came from, kept with the run.
        launcher: where it runs.
        setting: state folder, tracking store, circumstances.
        on_record: sees every record as it comes, in a thread of its own.
        delivery_timeout_s: longest wait at the end for a tracking store that is away.

    Raises:
        UsageError: the run folder cannot be written.
    """
    folder = setting.home.run_folder(plan.spec.name, at_unix_s=setting.started_unix_s)
    start = run_start(plan, key=folder.name, job_path=job.path, setting=setting)
    run = open_run(plan, job, folder=folder, start=start, setting=setting)
    spool_path = run.outbox.spool_path
    both = _both(run.tally.take, on_record)
    follower = Follower([spool_path], hand_on=lambda _number, record: both(record))
    writer = TrackingWriter(run.outbox, open_tracker=setting.open_tracker)
    launch = Launch(
        plan=plan,
        spool_path=spool_path,
        log_folder=run.log_folder,
        rank_environment=rank_environment(plan, extensions=setting.extensions),
    )
    follower.start()
    writer.start()
    outcome, failure = how_it_ended(lambda: launcher.run([launch]))
    with signals_held_back(show=log.warning):
        if failure is None:
            forget_unsent(launch.log_folder)
        else:
            take_over_unsent(launch.log_folder, spool_path=spool_path)
            note_failure(run, failure)
        follower.stop()
        settled = settle(run, outcome, failure, home=setting.home)
        record = settled.record
        seal(run, record)
        patience_s = IMPATIENT_DELIVERY_TIMEOUT_S if outcome == "interrupted" else math.inf
        n_unsent = writer.close(timeout_s=min(delivery_timeout_s, patience_s))
    tracked = writer.run
    if tracked is not None:
        record = replace(record, run_id=tracked.run_id)
    return Finished(
        record=record,
        failure=failure,
        folder=folder,
        tracked=tracked,
        n_unsent=n_unsent,
        receipt=settled.receipt,
    )


def how_it_ended(run: Callable[[], None]) -> tuple[Outcome, Failure | None]:
    """Let a launcher run and say how that ended, whatever happens.

    Args:
        run: raises what `Launcher.run` raises.
    """
    try:
        run()
    except RunError as err:
        return err.failure.outcome, err.failure
    except InfeasibleError as err:
        return "infeasible", _without_rank("infeasible", str(err))
    except KeyboardInterrupt:
        return "interrupted", _without_rank("interrupted", "interrupted; the run was stopped")
    except OrchestratorError as err:
        return "failed", _without_rank("failed", str(err), details=str(err.__cause__ or ""))
    except Exception as err:  # noqa: BLE001
        # The outermost frame of the run: whatever it was, the record says that the run failed.
        message = f"the launcher failed: {type(err).__name__}: {err}".splitlines()[0]
        return "failed", _without_rank("failed", message, details=traceback.format_exc())
    return "ok", None


def _without_rank(outcome: Outcome, message: str, *, details: str = "") -> Failure:
    return Failure(outcome=outcome, rank=None, step=None, message=message, details=details)


def _both(
    first: Callable[[Record], None], second: Callable[[Record], None]
) -> Callable[[Record], None]:
    def hand_on(record: Record) -> None:
        first(record)
        second(record)

    return hand_on
