"""A comparison in the terminal: a line for each strategy, the verdicts, what filled the memory.

Pure text.
"""

import textwrap
from collections.abc import Sequence
from statistics import median

from orchestrator.compare.columns import (
    Column,
    decimals_for,
    number,
    on_one_line,
    text_table,
    text_width,
)
from orchestrator.compare.conclusions import (
    LossGroup,
    cause_of,
    loss_groups,
    stopped,
    winner_reasons,
)
from orchestrator.compare.entry import Entry
from orchestrator.compare.ranking import Ranking, Sameness
from orchestrator.compare.strategy_columns import (
    SAMENESS_WORDS,
    ledger_columns,
    loss_decimals,
    most_shrunk,
    strategy_columns,
)
from orchestrator.units import as_bytes

_WIDTH = 100
"""Of what is no table."""
_WIDEST_BESIDE = 36
"""Beyond it what is said of a title stands below it."""
_MOST_NAMED_FIRST = 3
"""Of more strategies the reason is told before the names."""
_LEAST_WANTED_FIRST = (
    "MFU", "forecast error", "ratio's 95 %", "final loss", "NVMe MiB", "95 % interval", "host MiB",
    "x base", "same loss", "speed x base",
)  # fmt: skip
"""The columns that may be left out."""


def comparison_table(ranking: Ranking, *, width: int | None) -> str:
    """Lay out what each strategy came to.

    Args:
        ranking: the strategies.
        width: characters of a line; columns that do not fit are left out in a fixed order, and
            named below the table. `None` leaves out none.

    Returns:
        Lines without a newline at the end: a line a strategy in the ranking's order, and below
        them what the marks mean. An unknown value is a dash, a column without any value is left
        out.
    """
    if not ranking.rows:
        return "no strategy has run"
    columns, left_out = _fitting(strategy_columns(ranking), width=width)
    notes = []
    if any(row.pareto for row in ranking.rows):
        notes.append("*  no other strategy has both a smaller peak and more samples/s")
    if ranking.baseline is None:
        notes.append("no baseline: nothing that ran to its end to hold the others against")
    if left_out:
        notes.append(f"left out for want of room, and in the CSV: {', '.join(left_out)}")
    lines = [line for note in notes for line in _wrapped(note, indent=3, width=width or _WIDTH)]
    return "\n".join([text_table(columns), *lines])


def verdicts(ranking: Ranking) -> str:
    """Say who wins and why, whose losses are the same, what failed and what else differs.

    Returns:
        Blocks of lines with an empty line between them, without a newline at the end.
    """
    blocks = [_not_ranked(ranking) if ranking.not_ranked else _winners(ranking)]
    if groups := loss_groups(ranking):
        against = "" if ranking.baseline is None else f" against {ranking.baseline}'s"
        blocks.append([f"losses{against}", *_aligned(*map(_loss_line, groups))])
    if failures := stopped(ranking.rows):
        widest = max(len(one.name) for one in failures)
        told = [(f"{one.name:<{widest}}  {one.outcome}", one.cause) for one in failures]
        blocks.append(["did not run to their end", *_aligned(*told)])
    if ranking.differences:
        blocks.append(["also differs between the runs", *_listed(ranking.differences)])
    return "\n\n".join("\n".join(block) for block in blocks)


def ledger_by_strategy(ranking: Ranking) -> str | None:
    """Lay out what filled each strategy's fullest rank at its peak, by category, in MiB.

    Returns:
        Lines without a newline at the end: a line a strategy, and what sank most against the
        baseline; `None` where nothing was traced.
    """
    columns = ledger_columns(ranking)
    if columns is None:
        return None
    lines = [text_table(columns)]
    if shrunk := most_shrunk(ranking):
        lines.append(f"shrank most against {ranking.baseline}:")
        lines += _listed(shrunk)
    return "\n".join(lines)


def finished_line(entry: Entry) -> str:
    """Say in a line how a strategy went, as it has just finished; why, where it failed."""
    record = entry.record
    head = f"{entry.name}  {record.outcome}"
    if not entry.is_ok:
        return f"{head}  {cause_of(entry)}"
    facts = []
    if entry.peak_bytes is not None:
        facts.append(as_bytes(entry.peak_bytes))
    per_s = [speed for speeds in entry.rounds for speed in speeds]
    speed = median(per_s) if per_s else record.samples_per_s
    if speed is not None:
        facts.append(f"{number(speed, decimals=decimals_for([speed]))} samples/s")
    if record.losses:
        last = record.losses[-1]
        facts.append(f"final loss {number(last, decimals=loss_decimals([last]))}")
    return "  ".join([head, *facts])


def _fitting(columns: list[Column], *, width: int | None) -> tuple[list[Column], list[str]]:
    left_out = []
    for title in _LEAST_WANTED_FIRST:
        if width is None or text_width(columns) <= width:
            break
        kept = [column for column in columns if column.title != title]
        if len(kept) < len(columns):
            left_out.append(title)
        columns = kept
    return columns, left_out


def _not_ranked(ranking: Ranking) -> list[str]:
    return ["not ranked", *_listed(ranking.not_ranked)]


def _winners(ranking: Ranking) -> list[str]:
    lines = [
        (objective, f"{name or 'none'}: {why}") for objective, name, why in winner_reasons(ranking)
    ]
    if ranking.budget_bytes is not None:
        lines.append(("budget", f"{as_bytes(ranking.budget_bytes)} a device"))
    return ["winners", *_aligned(*lines)]


def _loss_line(group: LossGroup) -> tuple[str, str]:
    unknown = group.sameness is Sameness.UNKNOWN
    title = "not known" if unknown else SAMENESS_WORDS[group.sameness]
    names, why = ", ".join(group.names), [fact for fact in (group.difference, group.reason) if fact]
    if len(group.names) > _MOST_NAMED_FIRST:
        return title, f"{'; '.join([f'{len(group.names)} strategies', *why])}: {names}"
    return title, "; ".join([names, *why])


def _aligned(*lines: tuple[str, str]) -> list[str]:
    """Titles, and what is said of each beside it; below it where the titles leave no room."""
    width = max(len(title) for title, _ in lines)
    out = []
    for title, text in lines:
        if width > _WIDEST_BESIDE:
            out += [f"  {title}", *_wrapped(text, indent=6, first=6)]
        else:
            out += _wrapped(f"{title:<{width}}  {text}", indent=width + 4, first=2)
    return out


def _listed(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in _wrapped(on_one_line(text), indent=4, first=2)]


def _wrapped(text: str, *, indent: int, first: int = 0, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(
        text,
        width=max(width, 2 * indent),
        initial_indent=" " * first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
