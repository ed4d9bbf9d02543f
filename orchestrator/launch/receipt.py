"""The receipt of a run: forecast beside measurement, and what a GPU held beyond them. Pure."""

from orchestrator.forecast.device_overhead import CONTEXT_BYTES, ProbedOverhead
from orchestrator.forecast.forecast import Forecast
from orchestrator.forecast.receipts import Receipt
from orchestrator.measure.ledger import Ledger, completed
from orchestrator.measure.run_record import RankRow, RunRecord
from orchestrator.plan.launch_plan import LaunchPlan


def receipt_of(
    plan: LaunchPlan, record: RunRecord, *, run_key: str, now_s: float
) -> Receipt | None:
    """Put forecast and measurement of a rank side by side.

    Args:
        plan: with its forecast.
        record: what the run did cost.
        run_key: names the run.
        now_s: seconds since 1970.

    Returns:
        `None` without a forecast, or where the rank that it is of reported nothing.
    """
    forecast = plan.forecast
    row = next((row for row in record.ranks if forecast and row.rank == forecast.rank), None)
    if forecast is None or row is None or row.peak_bytes is None:
        return None
    spec = plan.spec
    reserved = forecast.device_memory
    beyond = None if row.gpu is None else row.gpu.beyond_allocator_bytes
    measured_reserved = None if row.cuda is None else row.cuda.reserved_bytes
    return Receipt(
        run_key=run_key,
        time_unix_s=now_s,
        strategy=plan.strategy,
        stage=spec.zero.stage,
        offload_optimizer=spec.zero.offload_optimizer,
        offload_params=spec.zero.offload_params,
        precision=spec.training.precision,
        activation_checkpointing=spec.training.activation_checkpointing,
        workers=plan.resources.workers,
        micro_batch_size=plan.batch.micro_batch_size,
        accumulation_steps=plan.batch.accumulation_steps,
        device=row.device or plan.resources.device,
        model=str(getattr(spec.model, "family", None) or getattr(spec.model, "factory", "?")),
        method=forecast.method,
        versions=record.circumstances.versions,
        rank=row.rank,
        forecast=forecast.phase_ledgers,
        measured=_measured(row),
        forecast_host_bytes=forecast.host_bytes,
        measured_host_bytes=row.host_bytes,
        forecast_nvme_bytes=forecast.nvme_bytes,
        measured_nvme_bytes=row.nvme_bytes,
        forecast_reserved_bytes=None if reserved is None else reserved.reserved_peak_bytes,
        measured_reserved_bytes=measured_reserved,
        forecast_device_bytes=_on_gpu(forecast),
        measured_device_bytes=(
            None if beyond is None or measured_reserved is None else beyond + measured_reserved
        ),
        forecast_step_s=None if forecast.step_time is None else forecast.step_time.total_s,
        measured_step_s=row.step_s.median,
    )


def probe_of_run(record: RunRecord, *, now_s: float) -> ProbedOverhead | None:
    """What a run's GPUs held beyond torch's allocator, for forecasts on the same kind of GPU.

    The driver does not tell the context from NCCL. Of a single rank all of it is the context; of
    several it serves forecasts of as many ranks, for which only the sum counts.

    Args:
        record: what the run did cost.
        now_s: seconds since 1970.

    Returns:
        `None` without a GPU, or a driver to ask.
    """
    told = [
        (row.gpu.beyond_allocator_bytes, row.device)
        for row in record.ranks
        if row.gpu is not None and row.gpu.beyond_allocator_bytes and row.device
    ]
    if not told:
        return None
    beyond, device = max(told)
    n_ranks = len(record.ranks)
    context = beyond if n_ranks == 1 else min(beyond, CONTEXT_BYTES[0])
    return ProbedOverhead(
        device_name=device,
        driver_version=f"any, {n_ranks} ranks",
        context_bytes=context,
        communication_bytes=beyond - context,
        n_ranks=n_ranks,
        measured_unix_s=now_s,
    )


def _measured(row: RankRow) -> dict[str, Ledger]:
    """Phase -> ledger, adding up to what was measured; untraced phases are unattributed."""
    return {
        phase: completed(row.peak_ledgers.get(phase, {}), measured_bytes=n_bytes)
        for phase, n_bytes in row.phase_peak_bytes.items()
        if n_bytes is not None
    }


def _on_gpu(forecast: Forecast) -> tuple[int, int] | None:
    if forecast.overhead is None:
        return None
    return forecast.needed.low, forecast.needed.high
