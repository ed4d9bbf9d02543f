"""What a person reads of a forecast: one job, or the strategies of a grid. Pure text."""

from collections.abc import Sequence

from orchestrator.forecast.by_count import StageRow
from orchestrator.forecast.forecast import Forecast
from orchestrator.forecast.terms import Term
from orchestrator.launch.strategy_grid import GridRow
from orchestrator.measure.columns import aligned_text
from orchestrator.measure.device_table import DevicePeak
from orchestrator.measure.ledger import CATEGORIES, Ledger
from orchestrator.units import MIB, as_bytes, as_duration

_METHODS = {"shadow": "a shadow run", "closed_form": "the closed form"}


def forecast_text(forecast: Forecast, *, name: str) -> str:
    """One job's forecast: a table of its phases, and what follows from it."""
    on = "CPUs" if forecast.device == "cpu" else forecast.device
    head = (
        f"Forecast of {name}: {forecast.strategy} on {_ranks(forecast.workers)} ({on}), "
        f"rank {forecast.rank}, by {_METHODS[forecast.method]}"
    )
    rows = "\n".join(f"  {key:<11}{value}" for key, value in _facts(forecast))
    return f"{head}\n\n{_phases(forecast)}\n\n{rows}"


def short_forecast_text(forecast: Forecast) -> str:
    """The forecast in a few lines, as `launch` and `plan` show it."""
    peak = (
        f"{as_bytes(forecast.peak_bytes)} of tensors on rank {forecast.rank} "
        f"at {forecast.peak_phase}, by {_METHODS[forecast.method]}"
    )
    rows = [("forecast", peak)]
    if forecast.why_closed_form:
        rows.append(("", f"no shadow run: {forecast.why_closed_form}"))
    if forecast.host_bytes:
        rows.append(("on host", as_bytes(forecast.host_bytes)))
    rows.append(("verdict", f"{forecast.verdict}: {forecast.reason}"))
    if (remedy := _remedy(forecast)) is not None:
        rows.append(("fits with", remedy))
    return "\n".join(f"  {key:<9} {value}" for key, value in rows)


def way_out(forecast: Forecast) -> str:
    """What to do about a forecast that does not fit."""
    remedy = _remedy(forecast)
    if remedy is None:
        return "no single strategy fits; use more workers, a smaller model or a larger budget"
    return f"it fits with {remedy}"


def grid_text(rows: Sequence[GridRow]) -> str:
    """Every strategy in a line, in the order given."""
    lines = [
        [
            "strategy", "micro", "peak MiB", "at", "needed MiB", "host MiB", "wire MiB/step",
            "step est.", "by", "verdict", "",
        ]
    ]  # fmt: skip
    for row in rows:
        forecast = row.forecast
        estimate = "-" if forecast.step_time is None else as_duration(forecast.step_time.total_s)
        lines.append(
            [
                row.name,
                str(row.plan.batch.micro_batch_size),
                _mib(forecast.peak_bytes),
                forecast.peak_phase,
                _mib(forecast.needed.high),
                _mib(forecast.host_bytes),
                _mib(forecast.wire_bytes_per_step),
                estimate,
                "shadow" if forecast.method == "shadow" else "closed form",
                forecast.verdict.value,
                forecast.reason if forecast.verdict != "FITS" else _job_itself(row),
            ]
        )
    words = [True, False, False, True, False, False, False, False, True, True, True]
    return aligned_text(lines, words=words)


def terms_text(terms: Sequence[Term]) -> str:
    """Every term of a closed form, with its formula and its source."""
    lines = [["phase", "category", "place", "MiB", "what", "source"]]
    lines += [
        [term.phase, term.category, term.place, _mib(term.n_bytes), term.what, term.source]
        for term in terms
        if term.n_bytes
    ]
    return aligned_text(lines, words=[True, True, True, False, True, True])


def _job_itself(row: GridRow) -> str:
    return "the job as it stands" if not row.candidate.overrides else ""


def _phases(forecast: Forecast) -> str:
    used = [
        category
        for category in CATEGORIES
        if any(ledger.get(category) for ledger in forecast.phase_ledgers.values())
    ]
    lines = [["at the peak of", "MiB", *used]]
    for phase, ledger in forecast.phase_ledgers.items():
        mark = " <" if phase == forecast.peak_phase else ""
        lines.append([f"{phase}{mark}", *_cells(ledger, used)])
    return aligned_text(lines, words=[True, *[False] * (len(used) + 1)])


def _cells(ledger: Ledger, used: Sequence[str]) -> list[str]:
    return [_mib(sum(ledger.values())), *(_mib(ledger[category]) for category in used)]


def _facts(forecast: Forecast) -> list[tuple[str, str]]:
    rows = [("batch", f"{forecast.global_batch_size} samples a step")]
    if forecast.why_closed_form:
        rows.append(("no shadow", forecast.why_closed_form))
    memory, overhead = forecast.device_memory, forecast.overhead
    if memory is not None:
        rows.append(
            (
                "allocator",
                f"{as_bytes(memory.reserved_peak_bytes)} reserved in {memory.n_segments} segments, "
                f"{as_bytes(memory.fragmentation_bytes)} of it cached or fragmented",
            )
        )
    if overhead is not None:
        low, high = overhead.total_bytes
        rows.append(
            ("beyond it", f"{as_bytes(low)} to {as_bytes(high)} ({overhead.source})"),
        )
    rows.append(("on host", _host(forecast)))
    if forecast.nvme_bytes is not None:
        rows.append(("on NVMe", as_bytes(forecast.nvme_bytes)))
    rows += _wire(forecast)
    rows.append(("ideal", f"{as_bytes(forecast.ideal_states_bytes)} of states by the ZeRO paper"))
    if forecast.step_time is not None:
        rows.append(("step", f"about {as_duration(forecast.step_time.total_s)}, an estimate"))
    rows += [("note", note) for note in forecast.notes]
    rows.append(("verdict", f"{forecast.verdict}: {forecast.reason}"))
    if (remedy := _remedy(forecast)) is not None:
        rows.append(("fits with", remedy))
    return rows


def _host(forecast: Forecast) -> str:
    host = forecast.host
    parts = []
    if host.offloaded_bytes:
        parts.append(f"{as_bytes(host.offloaded_bytes)} offloaded by a rank")
    if host.pinned_rounding_bytes:
        parts.append(f"{as_bytes(host.pinned_rounding_bytes)} by rounding pinned blocks up")
    if host.start_bytes:
        parts.append(f"{as_bytes(host.start_bytes)} for the whole model while a rank starts")
    node = (
        f"{as_bytes(host.node_bytes.expected)} on a node with {_ranks(host.ranks_per_node)}, "
        f"up to {as_bytes(host.node_bytes.high)}"
    )
    return "; ".join([*parts, node])


def _wire(forecast: Forecast) -> list[tuple[str, str]]:
    if not forecast.wire:
        return []
    total = f"{as_bytes(forecast.wire_bytes_per_step)} sent by a rank each step"
    rows = [("wire", total)]
    for term in forecast.wire:
        if term.payload_bytes >= forecast.peak_bytes / 10_000:
            calls = f"{term.n_calls} call{'s' if term.n_calls != 1 else ''}"
            name = term.collective.replace("_", "-")
            rows.append(("", f"{name} {term.what}: {calls}, {as_bytes(term.payload_bytes)}"))
    return rows


def _remedy(forecast: Forecast) -> str | None:
    change = forecast.remedy
    if change is None:
        return None
    settings = " ".join(f"--set {one}" for one in change.overrides)
    tried = "" if change.method == "shadow" else ", by the closed form alone"
    return f"{settings} ({change.strategy}: {as_bytes(change.needed_bytes)}{tried})"


def _ranks(n_ranks: int) -> str:
    return f"{n_ranks} rank{'s' if n_ranks != 1 else ''}"


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / MIB:,.1f}"


def by_count_text(
    rows: Sequence[StageRow], *, n_params: int, device: DevicePeak | None = None
) -> str:
    """Every stage for so many parameters: the paper's states beside what DeepSpeed holds.

    Args:
        rows: the stages.
        n_params: parameters.
        device: whose memory the peaks are held against.
    """
    lines = [
        [
            "stage", "optimizer on", "ideal GB", "DeepSpeed rests GB", "its peak GB", "at",
            "host GB", "" if device is None else f"of one {device.name}",
        ]
    ]  # fmt: skip
    for row in rows:
        lines.append(
            [
                str(row.stage),
                "host" if row.offload_optimizer == "cpu" else "device",
                _gb(row.ideal_states_bytes),
                _gb(row.resting_bytes),
                _gb(row.peak_bytes),
                row.peak_phase,
                _gb(row.host_bytes),
                "" if device is None else f"{row.peak_bytes / device.memory_bytes:.0%}",
            ]
        )
    table = aligned_text(lines, words=[True, True, False, False, False, True, False, False])
    return (
        f"{n_params:,} parameters, of one rank, in GB of 1e9 bytes\n\n{table}\n\n"
        "ideal: weights, gradients and optimizer state of mixed-precision Adam (ZeRO, "
        "arXiv:1910.02054, figure 1)\n"
        "DeepSpeed: with its default buckets, without activations"
    )


def devices_text(devices: Sequence[DevicePeak]) -> str:
    """The GPUs that are known, with capacity, rates and source."""
    lines = [["device", "GB", "bf16 TFLOP/s", "fp32 TFLOP/s", "source"]]
    for device in devices:
        rates = device.flops_per_s
        lines.append(
            [
                device.name,
                f"{device.memory_bytes / 1e9:,.0f}",
                *(f"{rates[p] / 1e12:,.1f}" if p in rates else "-" for p in ("bf16", "fp32")),
                device.source,
            ]
        )
    return aligned_text(lines, words=[True, False, False, False, True])


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f}"
