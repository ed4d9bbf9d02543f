"""The judge: from what strategies came to, to their ranking. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.compare.comparable import differences, why_not_ranked
from orchestrator.compare.entry import Entry
from orchestrator.compare.noise import ratio_to, throughput
from orchestrator.compare.pareto import pareto_front
from orchestrator.compare.ranking import (
    OBJECTIVES,
    LossVerdict,
    Ranking,
    Row,
    Sameness,
)
from orchestrator.compare.same_loss import same_loss
from orchestrator.compare.winners import winners


def judged(
    entries: Sequence[Entry],
    *,
    baseline: str | None,
    budget_bytes: int | None,
    controls: Mapping[str, Sequence[float]],
    varied: frozenset[str],
) -> Ranking:
    """Rank strategies.

    Args:
        entries: one a strategy, in the order of the rows.
        baseline: what the others are held against; `None`, or one that did not run to its end: the
            first that did.
        budget_bytes: what a device may hold; `None`: anything.
        controls: precision -> losses of the baseline trained again from first weights changed by
            rounding; see `same_loss`.
        varied: dotted keys that were varied on purpose.

    Raises:
        ValueError: no entry has the baseline's name.
    """
    if baseline is not None and baseline not in {entry.name for entry in entries}:
        raise ValueError(f"no entry is called {baseline!r}")
    held_against = _baseline(entries, baseline)
    not_ranked = why_not_ranked(entries, varied=varied)
    rows = tuple(_row(entry, held_against, controls=controls) for entry in entries)
    return Ranking(
        rows=rows if not_ranked else _with_front(rows),
        baseline=None if held_against is None else held_against.name,
        winners=(
            dict.fromkeys(OBJECTIVES) if not_ranked else winners(rows, budget_bytes=budget_bytes)
        ),
        budget_bytes=budget_bytes,
        differences=differences(entries, varied=varied),
        not_ranked=not_ranked,
    )


def _baseline(entries: Sequence[Entry], name: str | None) -> Entry | None:
    ok = [entry for entry in entries if entry.is_ok]
    named = [entry for entry in ok if entry.name == name]
    return next(iter((*named, *ok)), None)


def _row(entry: Entry, baseline: Entry | None, *, controls: Mapping[str, Sequence[float]]) -> Row:
    """A strategy beside the baseline; whether it is on the front is not known yet."""
    is_itself = baseline is not None and entry.name == baseline.name
    return Row(
        entry=entry,
        throughput=throughput(entry.rounds),
        speed_ratio=(
            None if baseline is None or is_itself else ratio_to(entry.rounds, baseline.rounds)
        ),
        peak_ratio=None if baseline is None else _ratio(entry.peak_bytes, baseline.peak_bytes),
        loss=_loss(entry, baseline, controls=controls),
        pareto=False,
    )


def _loss(
    entry: Entry, baseline: Entry | None, *, controls: Mapping[str, Sequence[float]]
) -> LossVerdict:
    if baseline is not None:
        return same_loss(entry, baseline, controls=controls)
    return LossVerdict(
        sameness=Sameness.UNKNOWN,
        max_difference=None,
        at_step=None,
        reason="no run came to its end that it could be held against",
    )


def _ratio(mine: int | None, theirs: int | None) -> float | None:
    return None if mine is None or not theirs else mine / theirs


def _with_front(rows: Sequence[Row]) -> tuple[Row, ...]:
    points = [
        (row.entry.peak_bytes, None if row.throughput is None else row.throughput.samples_per_s)
        if row.entry.is_ok
        else (None, None)
        for row in rows
    ]
    on_front = pareto_front(points)
    return tuple(replace(row, pareto=is_on) for row, is_on in zip(rows, on_front, strict=True))
