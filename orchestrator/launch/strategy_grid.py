"""Every sensible strategy for a job: the grid, its order, the smallest change that fits.

The closed form goes through all of them in milliseconds; shadow runs look at those that matter.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.forecast.forecast import Change, Forecast
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.forecast.verdict import Verdict
from orchestrator.launch.forecasting import Forecaster, fullest_rank
from orchestrator.plan.launch_plan import LaunchPlan, make_plan
from orchestrator.plan.resources import Machine
from orchestrator.plan.strategies import Candidate, candidates
from orchestrator.plan.what_if import ANY_CPU_MACHINE, ANY_MACHINE
from orchestrator.spec.load import JobFile

AT_ONCE = 2
"""Shadow runs side by side: each takes one core."""
TRY_S = 60.0
"""How long remedies are shadow-run until one fits; a round that has begun is finished."""
ROOM_RATIO = 0.85
"""Share of a budget up to which a remedy by the closed form is likely to hold."""
SURE_RATIO = 0.7
"""Share up to which it is told though it was not tried."""


def remedy(
    job: JobFile,
    plan: LaunchPlan,
    forecast: Forecast,
    *,
    forecaster: Forecaster,
    cpu_adam: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Change | None:
    """Find the smallest change of a job that fits; `None` where no single strategy does.

    Args:
        job: what was asked for.
        plan: its plan.
        forecast: that it does not fit; what it was made by is what candidates are held to.
        forecaster: holds candidates against the same device and node.
        cpu_adam: whether DeepSpeed's compiled CPU Adam can be built here.
        clock: seconds, from any start.
    """
    rows = grid(job, plan, forecaster=forecaster, cpu_adam=cpu_adam)
    changed = [row for row in rows if row.candidate.overrides]
    fitting = [row for row in changed if row.forecast.verdict is Verdict.FITS]
    waiting = sorted(fitting, key=_size_of_change)
    if forecast.method == "closed_form":
        return _change(waiting[0], waiting[0].forecast) if waiting else None
    # The closed form knows nothing of fragmentation: those with room for it come first.
    waiting.sort(key=lambda row: not _has_room(row.forecast, ratio=ROOM_RATIO))
    until_s = clock() + TRY_S
    while waiting and clock() < until_s:
        now, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        asked = [(row.plan, fullest_rank(row.plan, row.profile)) for row in now]
        for row, shadow in zip(now, forecaster.shadowed(asked), strict=True):
            if isinstance(shadow, ShadowResult):
                made = forecaster.from_shadow(row.plan, shadow, profile=row.profile)
                if made.verdict is Verdict.FITS:
                    return _change(row, made)
    # There was no time for these; they are told as what they are.
    untried = next((row for row in waiting if _has_room(row.forecast, ratio=SURE_RATIO)), None)
    return None if untried is None else _change(untried, untried.forecast)


def _size_of_change(row: "GridRow") -> tuple[int, float]:
    return row.candidate.n_changes, row.candidate.price


def _has_room(forecast: Forecast, *, ratio: float) -> bool:
    budget = forecast.budget
    return budget is None or forecast.needed.high <= ratio * budget.n_bytes


def _change(row: "GridRow", forecast: Forecast) -> Change:
    return Change(
        overrides=row.candidate.overrides,
        strategy=row.name,
        peak_bytes=forecast.peak_bytes,
        needed_bytes=forecast.needed.high,
        method=forecast.method,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One strategy of a grid."""

    candidate: Candidate
    plan: LaunchPlan
    profile: ModelProfile | None
    forecast: Forecast
    name: str
    """The strategy's, with the micro-batch where it is not the job's."""

    def to_json(self) -> dict[str, Any]:
        """The row of `forecast --grid --json`."""
        told = self.forecast.to_json()
        told.pop("terms")
        return {
            "overrides": list(self.candidate.overrides),
            "micro_batch_size": self.plan.batch.micro_batch_size,
            **told,
            "strategy": self.name,
        }


def grid(
    job: JobFile, plan: LaunchPlan, *, forecaster: Forecaster, cpu_adam: bool
) -> list[GridRow]:
    """Forecast every sensible strategy for a job by the closed form.

    Args:
        job: as asked for.
        plan: its plan.
        forecaster: knows device and node.
        cpu_adam: whether DeepSpeed's compiled CPU Adam can be built here.
    """
    machine = ANY_MACHINE if plan.resources.device == "cuda" else ANY_CPU_MACHINE
    plans = []
    for candidate in candidates(plan.spec, plan.batch):
        made = _planned(job, candidate, machine=machine, n_params=plan.n_params, cpu_adam=cpu_adam)
        if made is not None:
            plans.append((candidate, made))
    profiles = _profiles_of([made for _, made in plans], forecaster)
    own = profiles.get(plan.spec.training.activation_checkpointing)
    rows = []
    for candidate, made in plans:
        profile = profiles[made.spec.training.activation_checkpointing]
        if isinstance(profile, str) and isinstance(own, ModelProfile):
            # Such as a model without blocks that could be recomputed.
            continue
        known = profile if isinstance(profile, ModelProfile) else None
        why = profile if isinstance(profile, str) else None
        forecast = forecaster.closed_form(made, profile=known, why=why)
        micro = made.batch.micro_batch_size
        suffix = "" if micro == plan.batch.micro_batch_size else f"-micro{micro}"
        rows.append(
            GridRow(
                candidate=candidate,
                plan=made,
                profile=known,
                forecast=forecast,
                name=f"{made.strategy}{suffix}",
            )
        )
    return rows


def in_order(rows: Sequence[GridRow]) -> list[GridRow]:
    """Those that fit first, the fastest by estimate before others; of equals the smaller."""
    verdicts = list(Verdict)

    def rank(row: GridRow) -> tuple[int, bool, float, int]:
        time = row.forecast.step_time
        speed = row.candidate.price if time is None else time.total_s
        peak_bytes = row.forecast.peak_bytes
        return verdicts.index(row.forecast.verdict), time is None, speed, peak_bytes

    return sorted(rows, key=rank)


def best_by_shadow(
    rows: Sequence[GridRow],
    forecaster: Forecaster,
    *,
    clock: Callable[[], float],
    until_s: float,
) -> list[GridRow]:
    """Replace the forecasts that matter most by those of shadow runs, while there is time.

    They are those nearest to their budget, which decide what fits, and those that come first.

    Args:
        rows: a grid by the closed form.
        forecaster: runs shadows, some at once.
        clock: seconds, from any start.
        until_s: when to stop, by the clock; a round that has begun is finished.
    """
    found = {row.candidate.overrides: row for row in rows}
    waiting = sorted(in_order(rows), key=_nearness)
    took_s = 0.0
    while waiting and clock() + took_s < until_s:
        began_s = clock()
        now, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        for row, shadow in zip(
            now, forecaster.shadowed([(row.plan, 0) for row in now]), strict=True
        ):
            if isinstance(shadow, ShadowResult):
                forecast = forecaster.from_shadow(row.plan, shadow, profile=row.profile)
                found[row.candidate.overrides] = replace(row, forecast=forecast)
        took_s = clock() - began_s
    return list(found.values())


def _nearness(row: GridRow) -> float:
    """How far what is needed is from the budget, as a ratio; 1 where there is none."""
    budget = row.forecast.budget
    if budget is None or not budget.n_bytes:
        return 1.0
    return min(1.0, abs(row.forecast.needed.expected / budget.n_bytes - 1))


def _planned(
    job: JobFile, candidate: Candidate, *, machine: Machine, n_params: int, cpu_adam: bool
) -> LaunchPlan | None:
    changed = replace(job, spec=candidate.spec)
    try:
        return make_plan(changed, machine=machine, n_params=n_params, cpu_adam=cpu_adam)
    except SpecError:
        # Its own `deepspeed:` section does not go with this strategy.
        return None


def _profiles_of(
    plans: Sequence[LaunchPlan], forecaster: Forecaster
) -> dict[bool, ModelProfile | str]:
    """With and without recomputation -> the profile of the smallest micro-batch."""
    smallest: dict[bool, LaunchPlan] = {}
    for plan in plans:
        recomputed = plan.spec.training.activation_checkpointing
        known = smallest.get(recomputed)
        if known is None or plan.batch.micro_batch_size < known.batch.micro_batch_size:
            smallest[recomputed] = plan
    return dict(zip(smallest, forecaster.profiles(list(smallest.values())), strict=True))
