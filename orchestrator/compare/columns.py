"""Columns of tables about strategies, laid out for a terminal or as Markdown. Pure text."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.measure.columns import aligned_text
from orchestrator.measure.metric_def import in_mib

UNKNOWN = "-"
BASE = "base"
"""Stands where the baseline would be held against itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column, a cell for each strategy."""

    title: str
    cells: tuple[str, ...]
    words: bool = False
    """Aligned left; numbers are aligned right."""

    @property
    def says_something(self) -> bool:
        """Whether any cell has a value."""
        return any(cell not in ("", UNKNOWN, BASE) for cell in self.cells)

    @property
    def width(self) -> int:
        """Characters of the widest cell."""
        return max(map(len, (self.title, *self.cells)))


def word_column(title: str, texts: Iterable[str | None]) -> Column:
    """A column of words; an unknown one is a dash."""
    cells = tuple(UNKNOWN if text is None else on_one_line(text) for text in texts)
    return Column(title=title, cells=cells, words=True)


def number_column(title: str, values: Iterable[float | None], *, decimals: int) -> Column:
    """A column of numbers with thousands separators; an unknown one is a dash."""
    return Column(title=title, cells=tuple(number(value, decimals=decimals) for value in values))


def mib_column(title: str, sizes_bytes: Iterable[int | None], *, decimals: int) -> Column:
    """A column of bytes, told in MiB."""
    return number_column(title, map(in_mib, sizes_bytes), decimals=decimals)


def number(value: float | None, *, decimals: int) -> str:
    """A number with thousands separators; an unknown one is a dash."""
    return UNKNOWN if value is None else f"{value:,.{decimals}f}"


def interval(bounds: tuple[float, float] | None, *, decimals: int) -> str:
    """Two bounds as `386.2-401.7`."""
    return UNKNOWN if bounds is None else "-".join(number(n, decimals=decimals) for n in bounds)


def decimals_for(values: Iterable[float | None], *, least: int = 0) -> int:
    """Decimals that leave the smallest of some values three digits, at most three decimals.

    Args:
        values: what a column holds; zero and what is not finite need no decimals.
        least: decimals that are shown anyway.
    """
    sizes = [abs(value) for value in values if value and math.isfinite(value)]
    if not sizes:
        return least
    return max(least, min(3, 2 - math.floor(math.log10(min(sizes)))))


def saying_something(columns: Sequence[Column]) -> list[Column]:
    """Leave out the columns without any value."""
    return [column for column in columns if column.says_something]


def text_width(columns: Sequence[Column]) -> int:
    """Characters of a line of `text_table`."""
    return sum(column.width for column in columns) + 2 * (len(columns) - 1)


def text_table(columns: Sequence[Column]) -> str:
    """Lay out columns for a terminal, without a newline at the end."""
    return aligned_text(_lines(columns), words=[column.words for column in columns])


def markdown_table(columns: Sequence[Column]) -> str:
    """Lay out columns as a Markdown table that is aligned in its source too."""
    shown = [
        Column(
            title=escaped(column.title),
            cells=tuple(map(escaped, column.cells)),
            words=column.words,
        )
        for column in columns
    ]
    widths = [max(3, column.width) for column in shown]
    rules = [
        "-" * width if column.words else "-" * (width - 1) + ":"
        for column, width in zip(shown, widths, strict=True)
    ]
    head, *lines = _lines(shown)
    padded = [
        [
            cell.ljust(width) if column.words else cell.rjust(width)
            for cell, column, width in zip(line, shown, widths, strict=True)
        ]
        for line in (head, rules, *lines)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def escaped(text: str) -> str:
    """A text of somebody else's on one line of Markdown, shown as it is, in a table too."""
    # An underscore inside a word is never emphasis.
    marks = r"[\\|<*`\[\]]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(marks, r"\\\g<0>", on_one_line(text))


def on_one_line(text: str) -> str:
    """A text without line breaks and runs of spaces."""
    return " ".join(text.split())


def _lines(columns: Sequence[Column]) -> list[tuple[str, ...]]:
    return [
        tuple(column.title for column in columns),
        *zip(*(column.cells for column in columns), strict=True),
    ]
