"""The plans of a comparison: every strategy as it would be launched, with its forecast.

Touches user code and shadow processes, through `preflight` and `forecasting`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.compare.strategies import Strategy, strategies_of
from orchestrator.errors import InfeasibleError, Problem, SpecError
from orchestrator.forecast.verdict import Verdict
from orchestrator.launch.forecasting import Forecaster
from orchestrator.launch.preflight import Examined, has_user_parts, plan_job
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.plan.resources import Machine
from orchestrator.plan.what_if import ANY_CPU_MACHINE, ANY_MACHINE
from orchestrator.spec.load import JobFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStrategy:
    """One strategy, and what would be launched."""

    strategy: Strategy
    job: JobFile
    """The job file with the strategy's own settings."""
    plan: LaunchPlan
    infeasible: str | None
    """Why it cannot run here, with a way out; `None`: it can."""

    @property
    def name(self) -> str:
        """The strategy's."""
        return self.strategy.name


def plan_strategies(
    job: JobFile, *, machine: Machine, environment: Mapping[str, str]
) -> list[PlannedStrategy]:
    """Plan every strategy of a job's `compare:`.

    Args:
        job: the checked job file.
        machine: what there is to run on.
        environment: of this process.

    Raises:
        SpecError: something is wrong in a strategy, or the job compares nothing; carries every
            problem, so that no comparison stops half-way.
    """
    if job.spec.compare is None:
        message = "missing; say what to compare: compare: {axes: {zero.stage: [0, 1, 2, 3]}}"
        raise SpecError([job.problem("compare", message)])
    strategies = strategies_of(job.spec)
    _check_baseline(job, strategies)
    problems: dict[tuple[str, str], Problem] = {}
    planned = []
    looked_at: dict[str, Examined] = {}
    for strategy in strategies:
        own = replace(job, spec=strategy.spec)
        try:
            planned.append(
                _planned(
                    strategy, own, machine=machine, environment=environment, looked_at=looked_at
                )
            )
        except SpecError as err:
            for problem in err.problems:
                told = replace(problem, message=f"in {strategy.name}: {problem.message}")
                problems.setdefault((problem.key, problem.message), told)
    if problems:
        raise SpecError(list(problems.values()))
    return planned


def with_forecasts(
    planned: Sequence[PlannedStrategy], forecaster: Forecaster, *, force: bool
) -> list[PlannedStrategy]:
    """Forecast every strategy; one that is too big is not to be run.

    Args:
        planned: the strategies.
        forecaster: knows device and node.
        force: run also what is too big.
    """
    forecasts = forecaster.forecast_all([one.plan for one in planned])
    told = []
    for one, made in zip(planned, forecasts, strict=True):
        too_big = made.verdict is Verdict.TOO_BIG
        why = one.infeasible
        if why is None and too_big and not force:
            why = (
                f"it does not fit by its forecast: {made.reason}; see orchestrator forecast "
                "--grid for what fits, or run it all the same with --force"
            )
        plan = replace(one.plan, forecast=made, forced=too_big and force)
        told.append(replace(one, plan=plan, infeasible=why))
    return told


def _planned(
    strategy: Strategy,
    job: JobFile,
    *,
    machine: Machine,
    environment: Mapping[str, str],
    looked_at: dict[str, Examined],
) -> PlannedStrategy:
    examined = looked_at.get(_user_parts(job))

    def planned_on(one: Machine) -> LaunchPlan:
        return plan_job(job, machine=one, environment=environment, examined=examined)

    infeasible = None
    try:
        plan = planned_on(machine)
    except InfeasibleError as err:
        infeasible = str(err)
        plan = planned_on(ANY_MACHINE if machine.n_gpus >= 1 else ANY_CPU_MACHINE)
    if has_user_parts(job):
        looked_at[_user_parts(job)] = Examined(n_params=plan.n_params)
    return PlannedStrategy(strategy=strategy, job=job, plan=plan, infeasible=infeasible)


def _user_parts(job: JobFile) -> str:
    """All that a look at user code depends on: what is told once need not be asked again."""
    spec = job.spec
    training = spec.training
    parts = {
        "model": spec.model.model_dump(mode="json"),
        "data": spec.data.model_dump(mode="json"),
        "loss": training.loss,
        "checkpointing": training.activation_checkpointing,
    }
    return json.dumps(parts, sort_keys=True)


def _check_baseline(job: JobFile, strategies: Sequence[Strategy]) -> None:
    asked = None if job.spec.compare is None else job.spec.compare.baseline
    names = [strategy.name for strategy in strategies]
    if asked is not None and asked not in names:
        message = f"there is no strategy {asked!r}; there are {', '.join(names)}"
        raise SpecError([job.problem("compare.baseline", message)])
