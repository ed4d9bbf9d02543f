"""The comparison of one receipt: its forecast beside its measurement, as text. Touches nothing."""

from collections.abc import Sequence

from orchestrator.forecast.accuracy import as_percent
from orchestrator.forecast.receipts import CategoryError, Receipt, error_ratio
from orchestrator.measure.columns import aligned_text
from orchestrator.measure.ledger import UNATTRIBUTED
from orchestrator.measure.metric_def import in_mib
from orchestrator.measure.sample import PHASES
from orchestrator.units import as_duration, as_mib

_Line = tuple[str, str, str, str]
_WORDS = (True, False, False, False)


def comparison_text(receipt: Receipt) -> str:
    """Lay out what was forecast, what was measured and how far they are apart.

    Args:
        receipt: of one rank.

    Returns:
        Lines without a newline at the end: the phases and the peak; what filled the device at the
        measured peak by category, each error as a share of the whole peak; then host, NVMe and GPU
        where there are any, and the step's time. An unknown value is a dash, and a category that
        neither side has is left out.
    """
    blocks = [
        f"Forecast ({receipt.method.replace('_', ' ')}) and measurement of {receipt.run_key}, "
        f"rank {receipt.rank}: {receipt.model}, {receipt.strategy}, on {receipt.device}",
        _table("phase", _phase_lines(receipt)),
        _table(f"at {receipt.measured_peak_phase}", _category_lines(receipt), error="of the peak"),
        _table("place", _place_lines(receipt)),
        _step_line(receipt),
    ]
    return "\n\n".join(block for block in blocks if block)


def worst_category(receipt: Receipt) -> str | None:
    """Say which category was most off at the measured peak; `None` where nothing was measured."""
    errors = receipt.category_errors()
    if not errors:
        return None
    name = max(errors, key=lambda category: abs(errors[category].error_ratio))
    worst = errors[name]
    if worst.forecast_bytes == worst.measured_bytes:
        return f"every category at {receipt.measured_peak_phase} is as forecast"
    return (
        f"most off at {receipt.measured_peak_phase}: {name}, forecast "
        f"{as_mib(worst.forecast_bytes)}, measured {as_mib(worst.measured_bytes)}, "
        f"{as_percent(worst.error_ratio)} of the peak"
    )


def _table(title: str, lines: Sequence[_Line], *, error: str = "error") -> str:
    if not lines:
        return ""
    return aligned_text([(title, "forecast MiB", "measured MiB", error), *lines], words=_WORDS)


def _phase_lines(receipt: Receipt) -> list[_Line]:
    totals = [
        {phase: sum(ledger.values()) for phase, ledger in ledgers.items()}
        for ledgers in (receipt.forecast, receipt.measured)
    ]
    lines = [
        _bytes_line(phase, *(total.get(phase) for total in totals))
        for phase in PHASES
        if any(phase in total for total in totals)
    ]
    if receipt.peak_bytes is not None:
        lines.append(_bytes_line("peak", *receipt.peak_bytes))
    return lines


def _category_lines(receipt: Receipt) -> list[_Line]:
    # A category that nobody uses says nothing; that nothing is unattributed does.
    return [
        (
            name,
            _mib(error.forecast_bytes),
            _mib(error.measured_bytes),
            as_percent(error.error_ratio),
        )
        for name, error in receipt.category_errors().items()
        if name == UNATTRIBUTED or _is_used(error)
    ]


def _is_used(error: CategoryError) -> bool:
    return bool(error.forecast_bytes or error.measured_bytes)


def _place_lines(receipt: Receipt) -> list[_Line]:
    lines = [
        _bytes_line(place, forecast_bytes, measured_bytes)
        for place, forecast_bytes, measured_bytes in (
            ("host", receipt.forecast_host_bytes, receipt.measured_host_bytes),
            ("NVMe", receipt.forecast_nvme_bytes, receipt.measured_nvme_bytes),
            ("GPU, reserved", receipt.forecast_reserved_bytes, receipt.measured_reserved_bytes),
        )
        if forecast_bytes or measured_bytes
    ]
    interval, measured_bytes = receipt.forecast_device_bytes, receipt.measured_device_bytes
    if interval or measured_bytes:
        lines.append(_interval_line("GPU, in all", interval, measured_bytes))
    return lines


def _bytes_line(title: str, forecast_bytes: int | None, measured_bytes: int | None) -> _Line:
    known = forecast_bytes is not None and measured_bytes is not None
    ratio = error_ratio(forecast_bytes or 0, measured=measured_bytes or 0) if known else None
    return title, _mib(forecast_bytes), _mib(measured_bytes), as_percent(ratio)


def _interval_line(
    title: str, interval: tuple[int, int] | None, measured_bytes: int | None
) -> _Line:
    """The error is to the nearest bound, and none between them."""
    if interval is None:
        return _bytes_line(title, None, measured_bytes)
    low, high = interval
    nearest = None if measured_bytes is None else min(max(measured_bytes, low), high)
    _, _, measured, error = _bytes_line(title, nearest, measured_bytes)
    return title, f"{_mib(low)} to {_mib(high)}", measured, error


def _step_line(receipt: Receipt) -> str:
    forecast_s, measured_s = receipt.forecast_step_s, receipt.measured_step_s
    if forecast_s is None and measured_s is None:
        return ""
    known = forecast_s is not None and measured_s is not None
    ratio = error_ratio(forecast_s or 0, measured=measured_s or 0) if known else None
    return (
        f"step: forecast {as_duration(forecast_s)}, measured {as_duration(measured_s)}, "
        f"error {as_percent(ratio)}"
    )


def _mib(n_bytes: int | None) -> str:
    size_mib = in_mib(n_bytes)
    return "-" if size_mib is None else f"{size_mib:,.1f}"
