"""The per-rank table: aligned text for a terminal, CSV for a file. Touches nothing outside."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.measure.run_record import RankRow
from orchestrator.measure.sample import PHASES
from orchestrator.units import MIB

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


def _mib(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / MIB


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3


_COLUMNS = (
    _Column(title="node", value=lambda row: row.node),
    _Column(title="device", value=lambda row: row.device),
    _Column(title="peak MiB", value=lambda row: _mib(row.peak_bytes)),
    _Column(title="at", value=lambda row: row.peak_phase),
    _Column(title="RSS MiB", value=lambda row: _mib(row.rss_peak_bytes)),
    _Column(title="host MiB", value=lambda row: _mib(row.host_bytes)),
    _Column(title="NVMe MiB", value=lambda row: _mib(row.nvme_bytes)),
    _Column(title="samples/s", value=lambda row: row.samples_per_s),
    _Column(title="step ms", value=lambda row: _ms(row.step_s.median)),
    _Column(title="data", value=lambda row: _ms(row.step_s.data)),
    _Column(title="forward", value=lambda row: _ms(row.step_s.forward)),
    _Column(title="backward", value=lambda row: _ms(row.step_s.backward)),
    _Column(title="optimizer", value=lambda row: _ms(row.step_s.optimizer)),
    _Column(title="comm.", value=lambda row: _ms(row.step_s.communication)),
)


def rank_table(ranks: Sequence[RankRow]) -> str:
    """Lay out what each rank took.

    Args:
        ranks: the rows of a `RunRecord`.

    Returns:
        Lines of text without a newline at the end: a line a rank up to 16 ranks, beyond them
        minimum, median and maximum and the fullest and slowest rank. An unknown value is a dash, a
        column without any value is left out. Times are ms and medians.
    """
    if not ranks:
        return "no rank has reported anything"
    columns = [c for c in _COLUMNS if any(c.value(row) is not None for row in ranks)]
    if len(ranks) <= MAX_ROWS:
        lines = [
            ["rank", *(column.title for column in columns)],
            *([str(row.rank), *(c.cell(c.value(row)) for c in columns)] for row in ranks),
        ]
        words = [False, *(_is_words(column, ranks) for column in columns)]
        return _aligned(lines, words)
    return "\n".join([_spread(columns, ranks), *_extremes(ranks)])


def rank_csv(ranks: Sequence[RankRow]) -> str:
    """Write the same as CSV, a line a rank, in bytes and seconds; an unknown value is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    phases = [f"{phase}_peak_bytes" for phase in PHASES]
    amounts = ["rss_peak_bytes", "host_bytes", "nvme_bytes", "samples_per_s"]
    parts = ["median", "p95", "data", "forward", "backward", "communication", "optimizer"]
    times = [f"step_{part}_s" for part in parts]
    head = ["rank", "node", "device", "peak_bytes", "peak_phase"]
    writer.writerow([*head, *phases, *amounts, *times])
    for row in ranks:
        writer.writerow(
            [
                *(getattr(row, name) for name in head),
                *(row.phase_peak_bytes.get(phase) for phase in PHASES),
                *(getattr(row, name) for name in amounts),
                *(getattr(row.step_s, part) for part in parts),
            ]
        )
    return text.getvalue()


def _is_words(column: _Column, ranks: Sequence[RankRow]) -> bool:
    return any(isinstance(column.value(row), str) for row in ranks)


def _aligned(lines: Sequence[Sequence[str]], words: Sequence[bool]) -> str:
    widths = [max(len(cell) for cell in cells) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if is_words else cell.rjust(width)
            for cell, width, is_words in zip(line, widths, words, strict=True)
        ).rstrip()
        for line in lines
    )


def _spread(columns: Sequence[_Column], ranks: Sequence[RankRow]) -> str:
    numeric = [column for column in columns if not _is_words(column, ranks)]
    lines = [[f"{len(ranks)} ranks", *(column.title for column in numeric)]]
    for title, pick in (("min", min), ("median", median), ("max", max)):
        lines.append([title])
        for column in numeric:
            known = [v for row in ranks if isinstance(v := column.value(row), int | float)]
            lines[-1].append(column.cell(pick(known)))
    return _aligned(lines, [True, *(False for _ in numeric)])


def _extremes(ranks: Sequence[RankRow]) -> list[str]:
    lines = []
    full = max(ranks, key=lambda row: row.peak_bytes or 0)
    if (peak_mib := _mib(full.peak_bytes)) is not None:
        lines.append(f"fullest: {_who(full)}, {peak_mib:,.1f} MiB at {full.peak_phase}")
    slow = max(ranks, key=lambda row: row.step_s.median or 0)
    if (step_ms := _ms(slow.step_s.median)) is not None:
        lines.append(f"slowest: {_who(slow)}, {step_ms:,.1f} ms a step")
    return lines


def _who(row: RankRow) -> str:
    place = ", ".join(part for part in (row.node, row.device) if part)
    return f"rank {row.rank}" + (f" ({place})" if place else "")
