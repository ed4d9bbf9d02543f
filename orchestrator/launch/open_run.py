"""A run between its start and its end: its folder, what it has told so far, what becomes of it.

Everything that a run tells lies in its run folder first; the tracking store gets it from there.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.forecast.receipts import Receipt
from orchestrator.launch.artifacts import (
    keep_documents,
    keep_plots,
    keep_probe,
    keep_receipt,
    keep_results,
    keep_throughput,
)
from orchestrator.launch.failure import Failure
from orchestrator.launch.home import Home, versions
from orchestrator.launch.receipt import receipt_of
from orchestrator.measure.points import summary_points
from orchestrator.measure.run_record import Outcome, RunRecord
from orchestrator.measure.sample import RankFailure
from orchestrator.measure.summary import MAX_SAMPLES, RunTally
from orchestrator.measure.throughput import over_rounds
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.load import JobFile
from orchestrator.track.base import RunStart, Tracker, status_of
from orchestrator.track.names import flat_params
from orchestrator.track.outbox import Outbox
from orchestrator.track.spool import SpoolWriter


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that is not sealed yet."""

    plan: LaunchPlan
    outbox: Outbox
    tally: RunTally
    started_unix_s: float

    @property
    def folder(self) -> Path:
        """The run's folder; its name is the run's key."""
        return self.outbox.folder

    @property
    def log_folder(self) -> Path:
        """What Ray, DeepSpeed and the ranks say lies here."""
        return self.folder / "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a run came to."""

    record: RunRecord
    failure: Failure | None
    receipt: Receipt | None
    """Forecast and measurement of one rank."""


def open_run(
    plan: LaunchPlan,
    job: JobFile,
    *,
    folder: Path,
    start: RunStart,
    setting: Setting,
    max_samples: int = MAX_SAMPLES,
) -> OpenRun:
    """Make a run's folder and keep what was asked for.

    Args:
        plan: what will run.
        job: the file it came from, kept with the run.
        folder: the run's.
        start: what the tracking store is told of it.
        setting: its circumstances.
        max_samples: how many samples its summary may hold in memory.

    Raises:
        UsageError: the run folder cannot be written.
    """
    try:
        outbox = Outbox.create(folder, start)
        keep_documents(outbox, plan, job, commit=setting.commit)
    except OSError as err:
        raise UsageError(f"run folder {folder} cannot be written: {err.strerror}") from err
    return OpenRun(
        plan=plan,
        outbox=outbox,
        tally=RunTally(max_samples=max_samples),
        started_unix_s=start.start_time_ms / 1000,
    )


def run_start(
    plan: LaunchPlan,
    *,
    key: str,
    job_path: Path,
    setting: Setting,
    started_unix_s: float | None = None,
) -> RunStart:
    """What the tracking store is told of a run when it starts.

    Args:
        plan: what runs.
        key: ours, unique.
        job_path: as the user gave it.
        setting: its circumstances.
        started_unix_s: when it started; `None`: when the command was given.
    """
    spec = plan.spec
    tags = {
        "orchestrator.strategy": plan.strategy,
        "orchestrator.device": plan.resources.device,
        "orchestrator.workers": str(plan.resources.workers),
        **circumstances(job_path, setting=setting),
    }
    if plan.forecast is not None:
        tags["orchestrator.forecast"] = plan.forecast.verdict.value
    if plan.forced:
        tags["orchestrator.forced"] = "true"
    params = flat_params(spec.model_dump(mode="json", exclude={"compare"}))
    at_unix_s = setting.started_unix_s if started_unix_s is None else started_unix_s
    return RunStart(
        key=key,
        experiment=spec.tracking.experiment or spec.name,
        name=spec.name,
        start_time_ms=int(at_unix_s * 1000),
        params={**params, "strategy": plan.strategy, "n_params": str(plan.n_params)},
        tags=tags,
    )


def circumstances(job_path: Path, *, setting: Setting) -> dict[str, str]:
    """Who gave a command, where: as tags that MLflow's page knows."""
    known = {
        "mlflow.source.name": str(job_path),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": setting.user,
        "mlflow.source.git.commit": setting.commit,
    }
    return {key: value for key, value in known.items() if value}


def settle(
    run: OpenRun,
    outcome: Outcome,
    failure: Failure | None,
    *,
    home: Home,
    rounds: Sequence[Sequence[float]] | None = None,
) -> Settled:
    """Sum a run up and keep the numbers; takes a moment, and nothing of it reaches for the network.

    Args:
        run: whose ranks tell nothing more.
        outcome: how it ended.
        failure: why it ended early.
        home: the state folder.
        rounds: round -> samples/s of each measured step, the first one the run's own; `None`:
            there was no other.
    """
    record = run.tally.record(
        name=run.outbox.start().name,
        outcome=outcome,
        started_unix_s=run.started_unix_s,
        versions=versions(),
    )
    if record.message is None and failure is not None:
        record = replace(record, message=failure.message)
    rounds = [run.tally.samples_per_s()] if rounds is None else rounds
    record = over_rounds(record, rounds)
    receipt = receipt_of(run.plan, record, run_key=run.folder.name, now_s=time.time())
    record = _beside_forecast(record, run.plan, receipt)
    keep_results(run.outbox, record, folder=run.folder, failure=failure)
    keep_throughput(run.outbox, rounds)
    keep_receipt(run.outbox, receipt, home)
    keep_probe(record, home)
    return Settled(record=record, failure=failure, receipt=receipt)


def seal(run: OpenRun, record: RunRecord, *, plots: bool = True) -> None:
    """Draw a run and close its outbox; after this nothing comes."""
    if plots:
        keep_plots(run.outbox, record, run.tally, run.plan)
    now_ms = int(time.time() * 1000)
    run.outbox.finish(
        status=status_of(record.outcome),
        end_time_ms=now_ms,
        points=summary_points(record, time_ms=now_ms),
    )


def note_failure(run: OpenRun, failure: Failure) -> RankFailure:
    """Write into a run's spool why it ended early."""
    told = RankFailure(
        rank=failure.rank,
        step=failure.step,
        time_unix_s=time.time(),
        outcome=failure.outcome,
        message=failure.message,
        details=failure.details,
    )
    with SpoolWriter(run.outbox.spool_path) as spool:
        spool.append(told)
    return told


def _beside_forecast(record: RunRecord, plan: LaunchPlan, receipt: Receipt | None) -> RunRecord:
    if plan.forecast is None:
        return record
    return replace(
        record,
        forecast=plan.forecast.to_json(),
        forecast_peak_bytes=plan.forecast.peak_bytes,
        forecast_error_ratio=None if receipt is None else receipt.peak_error_ratio,
    )
