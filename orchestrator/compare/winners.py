"""Which strategy wins under each objective, and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.compare.noise import ratio_to
from orchestrator.compare.pareto import pareto_front
from orchestrator.compare.ranking import OBJECTIVES, Row, Winner
from orchestrator.units import as_mib

SAME_SPEED_RATIO = 0.95
"""A strategy that was measured slower than this is no equal of the fastest, however much noise
keeps that from being shown."""
SAME_PEAK_RATIO = 1.001
"""Peaks up to so much over the least one are as small as it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A strategy that ran to its end, and of which both numbers are known."""

    row: Row
    peak_bytes: int
    samples_per_s: float

    @property
    def name(self) -> str:
        return self.row.name


def winners(rows: Sequence[Row], *, budget_bytes: int | None) -> dict[str, Winner | None]:
    """Find the winner under each of `OBJECTIVES`.

    Args:
        rows: the strategies; those that did not end well, or whose memory or throughput is not
            known, never win.
        budget_bytes: what a device may hold; `None`: anything. Only the fastest has to fit it.
    """
    candidates = [
        _Candidate(
            row=row,
            peak_bytes=row.entry.peak_bytes,
            samples_per_s=row.throughput.samples_per_s,
        )
        for row in rows
        if row.entry.is_ok and row.throughput is not None and row.entry.peak_bytes is not None
    ]
    found = (
        _fastest(candidates, budget_bytes=budget_bytes),
        _smallest(candidates),
        _balanced(candidates),
    )
    return dict(zip(OBJECTIVES, found, strict=True))


def _fastest(candidates: Sequence[_Candidate], *, budget_bytes: int | None) -> Winner | None:
    fitting = [one for one in candidates if budget_bytes is None or one.peak_bytes <= budget_bytes]
    if not fitting:
        return None
    first = max(fitting, key=_speed_then_memory)
    equals = [one for one in fitting if one is first or _is_as_fast(one, first)]
    best = min(equals, key=lambda one: (one.peak_bytes, -one.samples_per_s))
    speed, peak = _speed(best), as_mib(best.peak_bytes)
    if best is not first:
        reason = (
            f"at {speed} it is not shown to be slower than {first.name} ({_speed(first)}), and "
            f"takes {peak} in place of {as_mib(first.peak_bytes)}"
        )
    elif budget_bytes is not None:
        reason = f"{speed} in {peak}, the most that fits {as_mib(budget_bytes)}"
    else:
        reason = f"{speed}, the most of all, in {peak}"
    return Winner(name=best.name, reason=reason)


def _smallest(candidates: Sequence[_Candidate]) -> Winner | None:
    if not candidates:
        return None
    least = min(one.peak_bytes for one in candidates)
    small = [one for one in candidates if one.peak_bytes <= least * SAME_PEAK_RATIO]
    best = max(small, key=_speed_then_memory)
    reason = f"a peak of {as_mib(best.peak_bytes)}, the least of all"
    if len(small) > 1:
        reason = (
            f"a peak of {as_mib(best.peak_bytes)}, and at {_speed(best)} the fastest of the "
            f"{len(small)} that take so little"
        )
    return Winner(name=best.name, reason=reason)


def _balanced(candidates: Sequence[_Candidate]) -> Winner | None:
    on_front = pareto_front([(one.peak_bytes, one.samples_per_s) for one in candidates])
    front = [one for one, is_on in zip(candidates, on_front, strict=True) if is_on]
    if not front:
        return None
    best = max(front, key=lambda one: one.samples_per_s / max(one.peak_bytes, 1))
    first = max(front, key=_speed_then_memory)
    if best.samples_per_s == first.samples_per_s:
        reason = f"{_speed(best)} in {as_mib(best.peak_bytes)}: no other is faster for its memory"
    else:
        reason = (
            f"{_percent(best.samples_per_s / first.samples_per_s)} of the speed of {first.name}, "
            f"the fastest of all, in {_percent(best.peak_bytes / first.peak_bytes)} of its memory"
        )
    return Winner(name=best.name, reason=reason)


def _is_as_fast(one: _Candidate, first: _Candidate) -> bool:
    if one.samples_per_s < SAME_SPEED_RATIO * first.samples_per_s:
        return False
    ratio = ratio_to(one.row.entry.rounds, first.row.entry.rounds)
    return ratio is not None and not ratio.difference_shown


def _speed_then_memory(one: _Candidate) -> tuple[float, int]:
    return one.samples_per_s, -one.peak_bytes


def _speed(one: _Candidate) -> str:
    return f"{one.samples_per_s:,.1f} samples/s"


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %"
