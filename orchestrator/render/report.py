"""What a person reads of a report on past runs. Pure text."""

import time
from collections.abc import Sequence

from orchestrator.compare.ranking import Ranking
from orchestrator.compare.table import comparison_table, ledger_by_strategy, verdicts
from orchestrator.launch.comparison.report import Reported
from orchestrator.launch.past_runs import LeftOut, PastRuns
from orchestrator.render.hints import as_typed
from orchestrator.units import as_duration

MOST_LEFT_OUT = 5
"""Runs that a line each is said of; further ones are counted."""
_MOST_IDS = 30
_MOST_USERS = 5
_SHORT_ID = 8
_LONGEST_REASON = 160


def reported_text(
    reported: Reported,
    past: PastRuns,
    *,
    baseline: str | None,
    seconds: float,
    width: int | None,
) -> str:
    """What was found, how the runs stand to each other, and where the report lies.

    Args:
        reported: the report.
        past: the runs it is on.
        baseline: the name that was asked for.
        seconds: what it took.
        width: columns of the terminal; `None`: as many as it takes.
    """
    ranking = reported.ranking
    return "\n\n".join(
        block
        for block in (
            _found(ranking, past, baseline=baseline),
            comparison_table(ranking, width=width),
            _ledgers(ranking),
            verdicts(ranking),
            f"Took {as_duration(seconds)}. The report, with its plots and tables: "
            f"{as_typed(reported.path)}",
        )
        if block
    )


def told_of(past: PastRuns, *, store: str) -> list[tuple[str, str]]:
    """What a written report tells of the runs it is on, besides what was measured.

    Args:
        past: the runs.
        store: where they were found.
    """
    ids = [
        f"{entry.name} {run.run_id[:_SHORT_ID]}"
        for entry, run in zip(past.entries, past.runs, strict=True)
    ]
    told = [
        ("runs", f"{', '.join(ids) if len(ids) <= _MOST_IDS else len(ids)} (ids in the CSV)"),
        ("started", _when(past)),
        ("found in", store),
    ]
    if past.users:
        told.append(("run by", ", ".join(past.users)))
    if past.left_out:
        told.append(("left out", "; ".join(_left_out(past.left_out))))
    return told


def _found(ranking: Ranking, past: PastRuns, *, baseline: str | None) -> str:
    n = len(past.runs)
    *others, last = past.users or ("",)
    who = f"{', '.join(others)} and {last}" if others else last
    by = f" by {who}" if 0 < len(past.users) <= _MOST_USERS else ""
    lines = [f"{past.name}: {n} run{'s' if n != 1 else ''}{by}, started {_when(past)}"]
    if past.left_out:
        lines.append("Left out:")
        lines += [f"  {line}" for line in _left_out(past.left_out)]
    if ranking.not_ranked:
        lines.append("They are not ranked, since they cannot be compared; why is said below")
    if baseline is not None and ranking.baseline not in (None, baseline):
        lines.append(f"{baseline} did not run to its end: held against {ranking.baseline}")
    return "\n".join(lines)


def _left_out(runs: Sequence[LeftOut]) -> list[str]:
    lines = [
        " ".join(f"{one.name} {one.run_id[:_SHORT_ID]}: {one.reason}".split())[:_LONGEST_REASON]
        for one in runs[:MOST_LEFT_OUT]
    ]
    n_more = len(runs) - MOST_LEFT_OUT
    return [*lines, f"and {n_more} more"] if n_more > 0 else lines


def _when(past: PastRuns) -> str:
    starts = sorted(run.started_unix_s for run in past.runs)
    first, last = (time.localtime(starts[n]) for n in (0, -1))
    told = time.strftime("%Y-%m-%d %H:%M", first)
    if first[:5] == last[:5]:
        return told
    form = "%H:%M" if first[:3] == last[:3] else "%Y-%m-%d %H:%M"
    return f"{told} to {time.strftime(form, last)}"


def _ledgers(ranking: Ranking) -> str | None:
    ledgers = ledger_by_strategy(ranking)
    return None if ledgers is None else f"What filled the fullest rank's memory, MiB\n{ledgers}"
