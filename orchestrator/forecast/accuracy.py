"""The Accuracy of forecasts: how far receipts were off, by kind of run. Pure arithmetic and text.

Percentiles are by nearest rank: the P-th of n values is the ceil(P n / 100)-th smallest, always
one of the values. The median of an even number is therefore the lower of the two in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.forecast.receipts import Receipt
from orchestrator.measure.columns import aligned_text

DEFAULT_BY = ("stage", "offload", "device")
GROUPINGS = (
    *DEFAULT_BY, "strategy", "offload_optimizer", "offload_params", "precision",
    "activation_checkpointing", "workers", "micro_batch_size", "accumulation_steps", "model",
    "method", "rank",
)  # fmt: skip
"""What receipts can be grouped by."""

NOTICED_RATIO = 0.01
"""An under-estimate by more than this is counted a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One forecast that was checked."""

    run_key: str
    rank: int
    phase: str
    """Of the measured peak."""
    error_ratio: float
    """Forecast less measured, as a share of the measured; negative is under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyRow:
    """How far a group of receipts was off."""

    group: dict[str, str]
    """What they share -> its value; empty in the rows over all receipts."""
    observed: Literal["peak", "phase"]
    """One observation a receipt, its largest peak; or one of each phase of each receipt."""
    n: int
    """Observations, at least 1."""
    median_ratio: float
    """Of the absolute errors."""
    p95_ratio: float
    """Of the absolute errors."""
    worst: Observation
    """The largest absolute error; of equals one that is under, then the first."""
    under_ratio: float
    """Share of the observations whose forecast is below the measurement, by however little."""
    noticed_under_ratio: float
    """Share whose forecast is below it by more than 1 % of it."""


def accuracy(
    receipts: Sequence[Receipt], *, by: Sequence[str] = DEFAULT_BY
) -> tuple[AccuracyRow, ...]:
    """Summarize errors of every group of receipts, and of all together.

    Args:
        receipts: a receipt without any phase that is both forecast and measured counts nowhere.
        by: of GROUPINGS; receipts alike in all of them are a group. Empty: only all together.

    Returns:
        Of each group a row on the peak and one on the phases, in the order of their values; last
        the same over all. A group without an observation has no row.

    Raises:
        ValueError: receipts cannot be grouped by that.
    """
    if unknown := [name for name in by if name not in GROUPINGS]:
        raise ValueError(f"cannot group by {', '.join(unknown)}; there are {', '.join(GROUPINGS)}")
    groups: dict[tuple[str | int, ...], list[Receipt]] = {}
    for receipt in receipts:
        groups.setdefault(tuple(getattr(receipt, name) for name in by), []).append(receipt)
    rows: list[AccuracyRow] = []
    for values in sorted(groups) if by else ():
        rows += _rows(dict(zip(by, map(_word, values), strict=True)), receipts=groups[values])
    return (*rows, *_rows({}, receipts=receipts))


def nearest_rank(values: Sequence[float], *, percent: int) -> float:
    """The percentile by nearest rank.

    Args:
        values: at least one.
        percent: 1 to 100.

    Raises:
        ValueError: there is no value, or no such percentile.
    """
    if not values or not 1 <= percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(values)} values")
    # Whole numbers: 0.95 * n may lie just above the rank it should be.
    return sorted(values)[-(-percent * len(values) // 100) - 1]


def accuracy_text(rows: Sequence[AccuracyRow]) -> str:
    """Lay the rows out for a terminal, without a newline at the end."""
    if not rows:
        return "no forecast has been measured"
    return aligned_text(_cells(rows), words=_words(rows))


def accuracy_markdown(rows: Sequence[AccuracyRow]) -> str:
    """Lay the rows out as a Markdown table, without a newline at the end."""
    if not rows:
        return "No forecast has been measured."
    head, *lines = (
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in _cells(rows)
    )
    rule = "|".join("---" if is_words else "---:" for is_words in _words(rows))
    return "\n".join([head, f"|{rule}|", *lines])


def as_percent(ratio: float | None) -> str:
    """A signed error in percent, `-3.80 %`; exactly none has no sign, the unknown is a dash."""
    if ratio is None:
        return "-"
    return f"{ratio:+,.2%}".replace("%", " %") if ratio else "0.00 %"


def _rows(group: dict[str, str], *, receipts: Sequence[Receipt]) -> list[AccuracyRow]:
    peaks = [
        _observation(receipt, phase=phase, error_ratio=ratio)
        for receipt in receipts
        if (ratio := receipt.peak_error_ratio) is not None
        and (phase := receipt.measured_peak_phase) is not None
    ]
    phases = [
        _observation(receipt, phase=phase, error_ratio=ratio)
        for receipt in receipts
        for phase, ratio in receipt.phase_error_ratios().items()
    ]
    # Where one is empty so is the other: a peak is some phase's.
    if not peaks:
        return []
    return [_row(peaks, group=group, observed="peak"), _row(phases, group=group, observed="phase")]


def _observation(receipt: Receipt, *, phase: str, error_ratio: float) -> Observation:
    return Observation(
        run_key=receipt.run_key, rank=receipt.rank, phase=phase, error_ratio=error_ratio
    )


def _row(
    observations: Sequence[Observation],
    *,
    group: dict[str, str],
    observed: Literal["peak", "phase"],
) -> AccuracyRow:
    errors = [observation.error_ratio for observation in observations]
    sizes = [abs(error) for error in errors]
    return AccuracyRow(
        group=group,
        observed=observed,
        n=len(errors),
        median_ratio=nearest_rank(sizes, percent=50),
        p95_ratio=nearest_rank(sizes, percent=95),
        worst=max(observations, key=lambda one: (abs(one.error_ratio), one.error_ratio < 0)),
        under_ratio=sum(error < 0 for error in errors) / len(errors),
        noticed_under_ratio=sum(error < -NOTICED_RATIO for error in errors) / len(errors),
    )


def _word(value: str | int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _groupings(rows: Sequence[AccuracyRow]) -> list[str]:
    """What any row is grouped by; a column of its own where none is."""
    return list(dict.fromkeys(name for row in rows for name in row.group)) or ["receipts"]


def _words(rows: Sequence[AccuracyRow]) -> list[bool]:
    return [*(True for _ in _groupings(rows)), True, *[False] * 4, True, *[False] * 2]


def _cells(rows: Sequence[AccuracyRow]) -> list[list[str]]:
    names = _groupings(rows)
    titles = ["of", "n", "median", "P95", "worst", "worst run", "under", "under by > 1 %"]
    return [[name.replace("_", " ") for name in names] + titles, *(_line(r, names) for r in rows)]


def _line(row: AccuracyRow, names: Sequence[str]) -> list[str]:
    first, *others = (row.group.get(name, "") for name in names)
    worst = row.worst
    return [
        first or "all",
        *others,
        row.observed,
        f"{row.n:,}",
        f"{row.median_ratio * 100:,.2f} %",
        f"{row.p95_ratio * 100:,.2f} %",
        as_percent(worst.error_ratio),
        f"{worst.run_key}, rank {worst.rank}, {worst.phase}",
        f"{row.under_ratio * 100:.1f} %",
        f"{row.noticed_under_ratio * 100:.1f} %",
    ]
