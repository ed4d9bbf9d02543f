"""One run from its plan to its record: started, followed, tracked, summed up, whatever happens.

Everything that a run tells lies in its run folder first; the tracking store gets it from there.
"""

import logging
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import InfeasibleError, OrchestratorError, UsageError
from orchestrator.forecast.receipts import Receipt
from orchestrator.launch.artifacts import (
    keep_documents,
    keep_plots,
    keep_probe,
    keep_receipt,
    keep_results,
)
from orchestrator.launch.base import Launch, Launcher, rank_environment
from orchestrator.launch.failure import Failure, RunError
from orchestrator.launch.follow import Follower
from orchestrator.launch.home import Home, versions
from orchestrator.launch.receipt import receipt_of
from orchestrator.launch.stop_signals import signals_held_back
from orchestrator.launch.unsent import forget_unsent, take_over_unsent
from orchestrator.measure.points import summary_points
from orchestrator.measure.run_record import Outcome, RunRecord
from orchestrator.measure.sample import RankFailure, Record
from orchestrator.measure.summary import RunTally
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.load import JobFile
from orchestrator.track.base import RunStart, TrackedRun, Tracker, status_of
from orchestrator.track.names import flat_params
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run gets from its surroundings."""

    home: Home
    open_tracker: Callable[[], Tracker]
    started_unix_s: float
    """When the user gave the command."""
    user: str | None
    """Who gave it."""
    commit: str | None
    """Git commit of the folder the command was given in."""
    extensions: Path
    """Folder of DeepSpeed's compiled ops."""


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
    start = _run_start(plan, key=folder.name, job_path=job.path, setting=setting)
    try:
        outbox = Outbox.create(folder, start)
        keep_documents(outbox, plan, job, commit=setting.commit)
    except OSError as err:
        raise UsageError(f"run folder {folder} cannot be written: {err.strerror}") from err
    tally = RunTally()
    both = _both(tally.take, on_record)
    follower = Follower([outbox.spool_path], hand_on=lambda _number, record: both(record))
    writer = TrackingWriter(outbox, open_tracker=setting.open_tracker)
    launch = Launch(
        plan=plan,
        spool_path=outbox.spool_path,
        log_folder=folder / "logs",
        rank_environment=rank_environment(plan, extensions=setting.extensions),
    )
    follower.start()
    writer.start()
    outcome, failure = _run(launcher, launch)
    with signals_held_back(show=log.warning):
        if failure is None:
            forget_unsent(launch.log_folder)
        else:
            take_over_unsent(launch.log_folder, spool_path=outbox.spool_path)
            _note_failure(outbox, failure)
        follower.stop()
        record = tally.record(
            name=plan.spec.name,
            outcome=outcome,
            started_unix_s=setting.started_unix_s,
            versions=versions(),
        )
        receipt = receipt_of(plan, record, run_key=folder.name, now_s=time.time())
        record = _beside_forecast(record, plan, receipt)
        keep_results(outbox, record, folder=folder, failure=failure)
        keep_receipt(outbox, receipt, setting.home)
        keep_probe(record, setting.home)
        keep_plots(outbox, record, tally, plan)
        now_ms = int(time.time() * 1000)
        outbox.finish(
            status=status_of(outcome),
            end_time_ms=now_ms,
            points=summary_points(record, time_ms=now_ms),
        )
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
        receipt=receipt,
    )


def _run(launcher: Launcher, launch: Launch) -> tuple[Outcome, Failure | None]:
    try:
        launcher.run([launch])
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


def _run_start(plan: LaunchPlan, *, key: str, job_path: Path, setting: Setting) -> RunStart:
    spec = plan.spec
    tags = {
        "orchestrator.strategy": plan.strategy,
        "orchestrator.device": plan.resources.device,
        "orchestrator.workers": str(plan.resources.workers),
        "mlflow.source.name": str(job_path),
        "mlflow.source.type": "LOCAL",
    }
    if plan.forecast is not None:
        tags["orchestrator.forecast"] = plan.forecast.verdict.value
    if plan.forced:
        tags["orchestrator.forced"] = "true"
    known = {"mlflow.user": setting.user, "mlflow.source.git.commit": setting.commit}
    tags |= {key: value for key, value in known.items() if value}
    params = flat_params(spec.model_dump(mode="json", exclude={"compare"}))
    return RunStart(
        key=key,
        experiment=spec.tracking.experiment or spec.name,
        name=spec.name,
        start_time_ms=int(setting.started_unix_s * 1000),
        params={**params, "strategy": plan.strategy, "n_params": str(plan.n_params)},
        tags=tags,
    )


def _beside_forecast(record: RunRecord, plan: LaunchPlan, receipt: Receipt | None) -> RunRecord:
    if plan.forecast is None:
        return record
    return replace(
        record,
        forecast=plan.forecast.to_json(),
        forecast_peak_bytes=plan.forecast.peak_bytes,
        forecast_error_ratio=None if receipt is None else receipt.peak_error_ratio,
    )


def _note_failure(outbox: Outbox, failure: Failure) -> None:
    with SpoolWriter(outbox.spool_path) as spool:
        spool.append(
            RankFailure(
                rank=failure.rank,
                step=failure.step,
                time_unix_s=time.time(),
                outcome=failure.outcome,
                message=failure.message,
                details=failure.details,
            )
        )


def _both(
    first: Callable[[Record], None], second: Callable[[Record], None]
) -> Callable[[Record], None]:
    def hand_on(record: Record) -> None:
        first(record)
        second(record)

    return hand_on
