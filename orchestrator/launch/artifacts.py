"""What a run keeps beside its metrics: documents before it, tables and plots after it.

Everything goes to the run's outbox, and from there to the tracking store.
"""

import json
import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from orchestrator.draw.plots import draw_run
from orchestrator.draw.rank_grid import step_time_grid
from orchestrator.errors import UsageError
from orchestrator.forecast.comparison import comparison_text
from orchestrator.forecast.device_overhead import store_probe
from orchestrator.forecast.receipts import Receipt, store_receipt
from orchestrator.launch.failure import Failure
from orchestrator.launch.home import Home, versions
from orchestrator.launch.receipt import probe_of_run
from orchestrator.measure.run_record import RunRecord
from orchestrator.measure.summary import RunTally
from orchestrator.measure.table import ledger_csv, ledger_table, rank_csv, rank_table
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.spec.load import JobFile
from orchestrator.track.outbox import Outbox
from orchestrator.units import GIB

log = logging.getLogger(__name__)


def keep_documents(outbox: Outbox, plan: LaunchPlan, job: JobFile, *, commit: str | None) -> None:
    """Keep what was asked for and what is sent."""
    outbox.add_text("job.yaml", job.text)
    if job.overrides:
        outbox.add_text("overrides.txt", "\n".join(job.overrides) + "\n")
    outbox.add_text("plan.json", _pretty(plan.to_json()))
    outbox.add_text("deepspeed.json", _pretty(plan.deepspeed))
    if plan.forecast is not None:
        outbox.add_text("forecast.json", _pretty(plan.forecast.to_json()))
    environment = {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit,
    }
    outbox.add_text("environment.json", _pretty(environment))


def keep_results(
    outbox: Outbox, record: RunRecord, *, folder: Path, failure: Failure | None
) -> None:
    """Keep what the run did cost, and why it failed."""
    outbox.add_text("summary.json", _pretty(record.to_json()))
    if record.ranks:
        outbox.add_text("ranks.csv", rank_csv(record.ranks))
        tables = [rank_table(record.ranks), ledger_table(record.ranks)]
        outbox.add_text("ranks.txt", "\n\n".join(filter(None, tables)) + "\n")
        outbox.add_text("ledgers.csv", ledger_csv(record.ranks))
    if failure is not None and failure.details:
        outbox.add_text("logs/failure.txt", failure.details + "\n")
        for path in sorted((folder / "logs").glob("*.log")):
            text = path.read_text(encoding="utf-8", errors="replace")
            outbox.add_text(f"logs/{path.name}.txt", text[-200_000:])


def keep_throughput(outbox: Outbox, rounds: Sequence[Sequence[float]]) -> None:
    """Keep how fast every measured step was, round by round, for comparisons with other runs."""
    told = [{"round": n, "samples_per_s": list(rates)} for n, rates in enumerate(rounds, start=1)]
    outbox.add_text("throughput.json", _pretty({"rounds": told}))


def keep_probe(record: RunRecord, home: Home) -> None:
    """Keep what the run's GPUs held beyond torch's allocator, for later forecasts."""
    probe = probe_of_run(record, now_s=time.time())
    if probe is not None:
        try:
            store_probe(home.probes, probe=probe)
        except UsageError as err:
            log.warning("what the GPU holds beyond tensors is not kept: %s", err)


def keep_receipt(outbox: Outbox, receipt: Receipt | None, home: Home) -> None:
    """Keep forecast and measurement, with the run and with those of other runs."""
    if receipt is None:
        return
    outbox.add_text("forecast_and_measured.txt", comparison_text(receipt) + "\n")
    try:
        store_receipt(home.receipts, receipt)
    except (UsageError, ValueError) as err:
        log.warning("the receipt is not kept: %s", err)


def keep_plots(outbox: Outbox, record: RunRecord, tally: RunTally, plan: LaunchPlan) -> None:
    """Draw the run; a run without a plot is still a run."""
    budget_gib = plan.spec.resources.memory_budget_gib
    try:
        plots = draw_run(
            record,
            timelines=tally.timelines(),
            step_times=step_time_grid(tally.kept_samples()),
            budget_bytes=None if budget_gib is None else int(budget_gib * GIB),
        )
        for name, content in plots.items():
            outbox.add_bytes(name, content)
    except Exception as err:  # noqa: BLE001
        # Drawing is a library's work on whatever a run has left; the numbers are kept already.
        log.warning("the plots cannot be drawn: %s: %s", type(err).__name__, err)


def _pretty(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
