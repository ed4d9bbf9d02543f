"""A comparison's conclusions in words: who wins, whose losses are the same, what failed.

Pure text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.compare.columns import on_one_line
from orchestrator.compare.entry import Entry
from orchestrator.compare.ranking import OBJECTIVES, Ranking, Row, Sameness
from orchestrator.units import as_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LossGroup:
    """Strategies whose losses are to the baseline's in the same way, for the same reason."""

    sameness: Sameness
    reason: str
    names: tuple[str, ...]
    furthest: Row
    """The one with the largest difference; the first where none is known."""

    @property
    def difference(self) -> str:
        """The largest difference and where it is; empty where there is none to tell."""
        loss = self.furthest.loss
        if not loss.max_difference:
            return ""
        step = "" if loss.at_step is None else f" at step {loss.at_step:,}"
        whose = f" ({self.furthest.name})" if len(self.names) > 1 else ""
        return f"largest difference {loss.max_difference:.2g}{step}{whose}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A strategy that did not run to its end."""

    name: str
    outcome: str
    cause: str
    """Why, and what to do next."""


def rows_with_losses(ranking: Ranking) -> list[Row]:
    """The strategies beside the baseline whose losses there is something to say of.

    Of one that stopped before its first step its failure says all.
    """
    return [
        row
        for row in ranking.rows
        if row.name != ranking.baseline and (row.entry.is_ok or row.entry.record.losses)
    ]


def loss_groups(ranking: Ranking) -> list[LossGroup]:
    """Group `rows_with_losses` by how their losses are to the baseline's, and why."""
    others = rows_with_losses(ranking)
    kinds = sorted(
        {(row.loss.sameness, row.loss.reason) for row in others},
        key=lambda kind: (list(Sameness).index(kind[0]), kind[1]),
    )
    groups = []
    for sameness, reason in kinds:
        rows = [row for row in others if (row.loss.sameness, row.loss.reason) == (sameness, reason)]
        groups.append(
            LossGroup(
                sameness=sameness,
                reason=on_one_line(reason),
                names=tuple(row.name for row in rows),
                furthest=max(rows, key=lambda row: row.loss.max_difference or 0),
            )
        )
    return groups


def same_loss_sentence(ranking: Ranking) -> str:
    """Whether the strategies computed the same training, in a sentence or two."""
    others = [row for row in ranking.rows if row.name != ranking.baseline]
    if ranking.baseline is None:
        return "No strategy ran to its end as a baseline, so that no losses are held against it."
    if not others:
        return "There is no other strategy to hold its losses against."
    names = {kind: [r.name for r in others if r.loss.sameness is kind] for kind in Sameness}
    same = [*names[Sameness.BITWISE], *names[Sameness.ROUNDING]]
    if names[Sameness.DIFFERENT]:
        changed = ", ".join(names[Sameness.DIFFERENT])
        verdict = f"Not every strategy computed the same training: {changed} did not."
    elif len(same) == len(others):
        verdict = "Every strategy computed the same training."
    elif same:
        verdict = "Every strategy whose losses can be compared computed the same training."
    else:
        verdict = "Whether the strategies computed the same training cannot be told."
    counts = (
        (Sameness.BITWISE, "the same to the last bit"),
        (Sameness.ROUNDING, "within rounding"),
        (Sameness.DIFFERENT, "DIFFERENT"),
        (Sameness.NOT_COMPARABLE, "not comparable"),
        (Sameness.UNKNOWN, "not known"),
    )
    told = ", ".join(f"{len(names[kind])} {words}" for kind, words in counts if names[kind])
    return f"{verdict} Against {ranking.baseline}: {told}."


def winner_reasons(ranking: Ranking) -> list[tuple[str, str | None, str]]:
    """Objective, its winner or none, and why."""
    lines: list[tuple[str, str | None, str]] = []
    for objective in OBJECTIVES:
        winner = ranking.winners.get(objective)
        if winner is None:
            lines.append((objective, None, _why_nobody(ranking, objective=objective)))
        else:
            lines.append((objective, winner.name, on_one_line(winner.reason)))
    return lines


def stopped(rows: Sequence[Row]) -> list[Stopped]:
    """The strategies that did not run to their end, each with its cause."""
    return [
        Stopped(name=row.name, outcome=row.entry.record.outcome, cause=cause_of(row.entry))
        for row in rows
        if not row.entry.is_ok
    ]


def cause_of(entry: Entry) -> str:
    """Why a run stopped and what to do next, on one line."""
    return on_one_line(entry.record.message or "") or "no cause was kept"


def _why_nobody(ranking: Ranking, *, objective: str) -> str:
    if not any(row.entry.is_ok for row in ranking.rows):
        return "no strategy ran to its end"
    if objective == "fastest" and ranking.budget_bytes is not None:
        return f"no strategy that ran is known to fit {as_bytes(ranking.budget_bytes)}"
    return "no strategy was measured closely enough"
