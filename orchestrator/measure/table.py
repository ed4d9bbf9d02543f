"""Tables of a run's ranks: aligned text for a terminal, CSV for a file. Touches nothing outside."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import median

from orchestrator.measure.columns import aligned_text
from orchestrator.measure.ledger import CATEGORIES, UNATTRIBUTED
from orchestrator.measure.metric_def import in_mib
from orchestrator.measure.run_record import RankRow, StepTimes
from orchestrator.measure.sample import PHASES

MAX_ROWS = 16
"""Beyond so many ranks the table shows their spread instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column of the text table: words are aligned left, numbers right."""

    title: str
    value: Callable[[RankRow], str | float | None]
    decimals: int = 1

    def cell(self, value: str | float | None) -> str:
        if value is None:
            return "-"
        return value if isinstance(value, str) else f"{value:,.{self.decimals}f}"


def _line_of(category: str) -> Callable[[RankRow], float | None]:
    return lambda row: in_mib((row.ledger or {}).get(category))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


_COLUMNS = (
    _Column(title="node", value=lambda row: row.node),
    _Column(title="device", value=lambda row: row.device),
    _Column(title="peak MiB", value=lambda row: in_mib(row.peak_bytes)),
    _Column(title="at", value=lambda row: row.peak_phase),
    _Column(title="RSS MiB", value=lambda row: in_mib(row.rss_peak_bytes)),
    _Column(title="host MiB", value=lambda row: in_mib(row.host_bytes)),
    _Column(title="NVMe MiB", value=lambda row: in_mib(row.nvme_bytes)),
    _Column(title="samples/s", value=lambda row: row.samples_per_s),
    _Column(title="step ms", value=lambda row: _ms(row.step_s.median)),
    _Column(title="data", value=lambda row: _ms(row.step_s.data)),
    _Column(title="forward", value=lambda row: _ms(row.step_s.forward)),
    _Column(title="backward", value=lambda row: _ms(row.step_s.backward)),
    _Column(title="optimizer", value=lambda row: _ms(row.step_s.optimizer)),
    _Column(title="comm.", value=lambda row: _ms(row.step_s.communication)),
    _Column(title="logging", value=lambda row: _ms(row.step_s.logging)),
    _Column(title="checkpoint", value=lambda row: _ms(row.step_s.checkpoint)),
)
_LEDGER_COLUMNS = (
    _Column(title="peak MiB", value=lambda row: in_mib(row.peak_bytes)),
    *(_Column(title=name, value=_line_of(name)) for name in CATEGORIES),
    _Column(title="cached", value=lambda row: in_mib(row.cuda.cached_bytes if row.cuda else None)),
    _Column(
        title="context",
        value=lambda row: in_mib(row.gpu.beyond_allocator_bytes if row.gpu else None),
    ),
    _Column(title="on host", value=lambda row: in_mib(row.host_bytes)),
    _Column(title="on NVMe", value=lambda row: in_mib(row.nvme_bytes)),
)


def rank_table(ranks: Sequence[RankRow]) -> str:
    """Lay out what each rank took and where its steps went.

    Args:
        ranks: the rows of a `RunRecord`.

    Returns:
        Lines of text without a newline at the end: a line a rank up to 16 ranks, beyond them
        minimum, median and maximum; with more than one rank also the fullest and the slowest. An
        unknown value is a dash, a column without any value is left out. Times are ms and medians.
    """
    if not ranks:
        return "no rank has reported anything"
    return "\n".join([_laid_out(_COLUMNS, ranks), *(_extremes(ranks) if len(ranks) > 1 else ())])


def ledger_table(ranks: Sequence[RankRow]) -> str | None:
    """Lay out what fills each rank's memory at its peak, by category, in MiB.

    Args:
        ranks: the rows of a `RunRecord`.

    Returns:
        Lines as `rank_table` has them, from left to right the peak, the categories that add up to
        it, and what lies elsewhere; `None` where nothing was traced.
    """
    if not any(row.ledger for row in ranks):
        return None
    # A category that nobody uses says nothing; that nothing is unattributed does.
    unused = {
        name
        for name in CATEGORIES
        if name != UNATTRIBUTED and not any((row.ledger or {}).get(name) for row in ranks)
    }
    return _laid_out([c for c in _LEDGER_COLUMNS if c.title not in unused], ranks)


def _laid_out(columns: Sequence[_Column], ranks: Sequence[RankRow]) -> str:
    columns = [c for c in columns if any(c.value(row) is not None for row in ranks)]
    if len(ranks) > MAX_ROWS:
        return _spread(columns, ranks)
    lines = [
        ["rank", *(column.title for column in columns)],
        *([str(row.rank), *(c.cell(c.value(row)) for c in columns)] for row in ranks),
    ]
    return aligned_text(lines, words=[False, *(_is_words(column, ranks) for column in columns)])


def rank_csv(ranks: Sequence[RankRow]) -> str:
    """Write the same as CSV, a line a rank, in bytes and seconds; an unknown value is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    phases = [f"{phase}_peak_bytes" for phase in PHASES]
    lines = [f"peak_{name}_bytes" for name in CATEGORIES]
    rates = ["samples_per_s", "flops_per_s", "mfu_ratio"]
    resident = ["rss_peak_bytes", "container_peak_bytes", "host_bytes", "nvme_bytes"]
    shares = [f"{phase}_pss_bytes" for phase in PHASES]
    parts = [field.name for field in fields(StepTimes)]
    times = [f"step_{part}_s" for part in parts]
    head = ["rank", "node", "device", "peak_bytes", "peak_phase"]
    writer.writerow([*head, *phases, *lines, *resident, *shares, *rates, *times])
    for row in ranks:
        writer.writerow(
            [
                *(getattr(row, name) for name in head),
                *(row.phase_peak_bytes.get(phase) for phase in PHASES),
                *((row.ledger or {}).get(name) for name in CATEGORIES),
                *(getattr(row, name) for name in resident),
                *(row.phase_pss_bytes.get(phase) for phase in PHASES),
                *(getattr(row, name) for name in rates),
                *(getattr(row.step_s, part) for part in parts),
            ]
        )
    return text.getvalue()


def ledger_csv(ranks: Sequence[RankRow]) -> str:
    """Write every ledger of every rank as CSV, in bytes.

    Args:
        ranks: the rows of a `RunRecord`.

    Returns:
        A line for each phase's peak and each phase's end, on the device, and one for the host;
        `total_bytes` is the sum of the categories.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{name}_bytes" for name in CATEGORIES]
    writer.writerow(["rank", "where", "phase", "moment", "total_bytes", *names])
    for row in ranks:
        moments = [("device", phase, "peak", row.peak_ledgers.get(phase)) for phase in PHASES]
        moments += [("device", phase, "end", row.edge_ledgers.get(phase)) for phase in PHASES]
        moments.append(("host", "", "peak", row.host_ledger))
        for where, phase, moment, ledger in moments:
            if ledger is not None:
                values = [ledger[name] for name in CATEGORIES]
                writer.writerow([row.rank, where, phase, moment, sum(values), *values])
    return text.getvalue()


def _is_words(column: _Column, ranks: Sequence[RankRow]) -> bool:
    return any(isinstance(column.value(row), str) for row in ranks)


def _spread(columns: Sequence[_Column], ranks: Sequence[RankRow]) -> str:
    numeric = [column for column in columns if not _is_words(column, ranks)]
    lines = [[f"{len(ranks)} ranks", *(column.title for column in numeric)]]
    for title, pick in (("min", min), ("median", median), ("max", max)):
        lines.append([title])
        for column in numeric:
            known = [v for row in ranks if isinstance(v := column.value(row), int | float)]
            lines[-1].append(column.cell(pick(known)))
    return aligned_text(lines, words=[True, *(False for _ in numeric)])


def _extremes(ranks: Sequence[RankRow]) -> list[str]:
    lines = []
    full = max(ranks, key=lambda row: row.peak_bytes or 0)
    if (peak_mib := in_mib(full.peak_bytes)) is not None:
        lines.append(f"fullest: {_who(full)}, {peak_mib:,.1f} MiB at {full.peak_phase}")
    slow = max(ranks, key=lambda row: row.step_s.median or 0)
    if (step_ms := _ms(slow.step_s.median)) is not None:
        lines.append(f"slowest: {_who(slow)}, {step_ms:,.1f} ms a step")
    return lines


def _who(row: RankRow) -> str:
    place = ", ".join(part for part in (row.node, row.device) if part)
    return f"rank {row.rank}" + (f" ({place})" if place else "")
