"""Forecasts of plans: what is asked of shadow processes, and what is made of their answers.

Touches shadow processes and the state folder, through `Shadows`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from orchestrator.forecast.allocator_settings import AllocatorSettings, settings_from_env
from orchestrator.forecast.assemble import Asked, Evidence, assemble
from orchestrator.forecast.closed_form import closed_form
from orchestrator.forecast.device_overhead import ProbedOverhead, load_probes
from orchestrator.forecast.forecast import Budget, Forecast
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.launch.home import Home
from orchestrator.launch.local_gpu import local_gpu
from orchestrator.launch.node_memory import node_memory_bytes
from orchestrator.launch.shadows import Shadows, broken_shim, self_test
from orchestrator.measure.device_table import DevicePeak
from orchestrator.measure.devices import find_device
from orchestrator.plan.forecast_setup import setup_of
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.units import GIB
from orchestrator.worker.shadow.requests import ProfileRequest, Request, ShadowRequest

_N_ASKED_FIRST = 3
"""A profile and the two self-tests, before the shadow runs."""
MOST_RANKS_COMPARED = 16
"""Up to so many ranks the closed form looks at each to find the fullest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """What a forecast is held against."""

    device: DevicePeak | None
    """The GPU that was asked for, or that this machine has; `None` where it is not known."""
    ranks_per_node: int | None
    """`None`: all ranks share one node."""
    node_budget_bytes: int | None
    """Memory of a node; `None` where it is not known."""
    probes: tuple[ProbedOverhead, ...] = ()
    """What was measured beyond torch's allocator on GPUs of all kinds."""


class Forecaster:
    """Forecasts plans.

    Args:
        shadows: answers what needs torch.
        where: what plans are held against.
        environment: of this process; says how CUDA's allocator is set.
    """

    def __init__(self, shadows: Shadows, *, where: Where, environment: Mapping[str, str]) -> None:
        self._shadows = shadows
        self._where = where
        text = environment.get("PYTORCH_ALLOC_CONF") or environment.get("PYTORCH_CUDA_ALLOC_CONF")
        self._allocator: AllocatorSettings = settings_from_env(text)[0]

    def forecast(
        self, plan: LaunchPlan, *, rank: int | None = None, notes: Sequence[str] = ()
    ) -> Forecast:
        """Forecast one plan by a shadow run, or by the closed form where that cannot be.

        Args:
            plan: what would run.
            rank: which rank; `None`: the fullest.
            notes: to be told with it.
        """
        return self.forecast_all([plan], rank=rank, notes=notes)[0]

    def forecast_all(
        self, plans: Sequence[LaunchPlan], *, rank: int | None = None, notes: Sequence[str] = ()
    ) -> list[Forecast]:
        """Forecast plans, all shadow runs in one process; see `forecast`."""
        asked = [self._questions(plan, rank) for plan in plans]
        told = iter(self._shadows.ask([one for questions in asked for one in questions]))
        answers = [list(islice(told, len(questions))) for questions in asked]
        # Of many ranks, the one that the closed form says is fullest is run once that is known.
        waiting = {
            number: self._request(plan, _fullest(plan, given[0], rank))
            for number, (plan, given) in enumerate(zip(plans, answers, strict=True))
            if len(given) == _N_ASKED_FIRST and broken_shim(*given[1:]) is None
        }
        for number, shadow in zip(waiting, self._ask_some(waiting.values()), strict=True):
            answers[number].append(shadow)
        return [
            self._answered(plan, given, rank=rank, notes=notes)
            for plan, given in zip(plans, answers, strict=True)
        ]

    def _questions(self, plan: LaunchPlan, rank: int | None) -> list[Request]:
        test = self_test(stage=plan.spec.zero.stage, precision=_tested_precision(plan))
        # Of two ranks both are run at once.
        requests = [self._request(plan, one) for one in _first_ranks(plan, rank)]
        return [ProfileRequest(plan=plan), *test, *requests]

    def _ask_some(
        self, requests: Iterable[ShadowRequest]
    ) -> list[ShadowResult | ModelProfile | str]:
        found = list(requests)
        return self._shadows.ask(found) if found else []

    def _answered(
        self,
        plan: LaunchPlan,
        answers: Sequence[ShadowResult | ModelProfile | str],
        *,
        rank: int | None,
        notes: Sequence[str],
    ) -> Forecast:
        profile, *rest = answers
        known = profile if isinstance(profile, ModelProfile) else None
        asked = self.asked(plan, profile=known, notes=notes)
        shadows = rest[_N_ASKED_FIRST - 1 :]
        why = _why_not(shadows, broken_shim(*rest[: _N_ASKED_FIRST - 1]))
        if why is not None:
            fullest = _fullest(plan, profile, rank)
            return self._closed(plan, asked, known, why=why, rank=fullest)
        results = [shadow for shadow in shadows if isinstance(shadow, ShadowResult)]
        shadow = max(results, key=lambda one: max(one.phase_peak_bytes.values()))
        evidence = Evidence(
            shadow=shadow, why_closed_form=None, profile=known, probed=self._probed(plan)
        )
        return assemble(asked, evidence)

    def closed_form(
        self,
        plan: LaunchPlan,
        *,
        profile: ModelProfile | None,
        rank: int = 0,
        why: str | None = None,
        notes: Sequence[str] = (),
    ) -> Forecast:
        """Forecast one plan by the closed form alone, in milliseconds.

        Args:
            plan: what would run.
            profile: its bare model; `None` where that cannot be traced.
            rank: which rank.
            why: why there is no shadow run.
            notes: to be told with it.
        """
        asked = self.asked(plan, profile=profile, notes=notes)
        return self._closed(plan, asked, profile, why=why, rank=rank)

    def profiles(self, plans: Sequence[LaunchPlan]) -> list[ModelProfile | str]:
        """Trace the bare models of plans."""
        answers = self._shadows.ask([ProfileRequest(plan=plan) for plan in plans])
        return [one if isinstance(one, ModelProfile | str) else str(one) for one in answers]

    def shadowed(self, plans: Sequence[tuple[LaunchPlan, int]]) -> list[ShadowResult | str]:
        """Shadow-run a rank of each plan, side by side."""
        answers = self._shadows.ask([self._request(plan, rank) for plan, rank in plans])
        return [one if isinstance(one, ShadowResult | str) else str(one) for one in answers]

    def from_shadow(
        self, plan: LaunchPlan, shadow: ShadowResult, *, profile: ModelProfile | None
    ) -> Forecast:
        """A forecast from a shadow run that was made before."""
        evidence = Evidence(
            shadow=shadow, why_closed_form=None, profile=profile, probed=self._probed(plan)
        )
        return assemble(self.asked(plan, profile=profile), evidence)

    def asked(
        self, plan: LaunchPlan, *, profile: ModelProfile | None, notes: Sequence[str] = ()
    ) -> Asked:
        """What a forecast of a plan is about."""
        device = self._where.device
        on_gpu = plan.resources.device == "cuda"
        return Asked(
            setup=setup_of(plan, ranks_per_node=self._where.ranks_per_node),
            strategy=plan.strategy,
            device=device.name if on_gpu and device is not None else plan.resources.device,
            n_params=plan.n_params,
            n_elements=plan.n_params if profile is None else profile.n_elements,
            global_batch_size=plan.batch.global_batch_size,
            device_peak=device if on_gpu else None,
            budget=_budget(plan, device if on_gpu else None),
            node_budget_bytes=self._where.node_budget_bytes,
            notes=tuple(notes),
        )

    def _request(self, plan: LaunchPlan, rank: int) -> ShadowRequest:
        return ShadowRequest(plan=plan, rank=rank, sample=None, allocator=self._allocator)

    def _closed(
        self,
        plan: LaunchPlan,
        asked: Asked,
        profile: ModelProfile | None,
        *,
        why: str | None,
        rank: int,
    ) -> Forecast:
        evidence = Evidence(
            shadow=None,
            why_closed_form=why,
            profile=profile,
            probed=self._probed(plan),
            rank=rank,
        )
        return assemble(asked, evidence)

    def _probed(self, plan: LaunchPlan) -> ProbedOverhead | None:
        if self._where.device is None:
            return None
        return probe_of(self._where.device, self._where.probes, n_ranks=plan.resources.workers)


def fullest_rank(plan: LaunchPlan, profile: ModelProfile | None) -> int:
    """The rank that holds most by the closed form; of equals the first."""
    if profile is None:
        return 0
    setup = setup_of(plan)
    n_ranks = plan.batch.workers
    ranks = (
        list(range(n_ranks))
        if n_ranks <= MOST_RANKS_COMPARED
        else sorted({0, 1, n_ranks // 2, n_ranks - 2, n_ranks - 1})
    )

    def peak(rank: int) -> int:
        made = closed_form(setup, profile=profile, rank=rank)
        return max(sum(ledger.values()) for ledger in made.phase_ledgers.values())

    return max(ranks, key=peak)


def _fullest(plan: LaunchPlan, profile: object, rank: int | None) -> int:
    """The rank that was asked for, or else the fullest."""
    if rank is not None:
        return rank
    return fullest_rank(plan, profile if isinstance(profile, ModelProfile) else None)


def _first_ranks(plan: LaunchPlan, rank: int | None) -> list[int]:
    """The ranks to run before anything is known of the model."""
    if rank is not None:
        return [rank]
    return list(range(plan.batch.workers)) if plan.batch.workers <= 2 else []


def _tested_precision(plan: LaunchPlan) -> str:
    """What the self-test runs in: a CPU, which it runs on, does not know fp16."""
    return "fp32" if plan.spec.training.precision == "fp32" else "bf16"


def _why_not(shadows: Sequence[object], broken: str | None) -> str | None:
    failed = next((shadow for shadow in shadows if isinstance(shadow, str)), None)
    if failed is None and broken is not None:
        return f"fake tensors cannot be trusted with the installed versions: {broken}"
    return failed


def _budget(plan: LaunchPlan, device: DevicePeak | None) -> Budget | None:
    """The smaller of what the job allows and what the device has."""
    budgets = []
    given_gib = plan.spec.resources.memory_budget_gib
    if given_gib is not None:
        budgets.append(Budget(n_bytes=int(given_gib * GIB), of="of the budget (memory_budget_gib)"))
    if device is not None:
        budgets.append(Budget(n_bytes=device.memory_bytes, of=f"of one {device.name}"))
    return min(budgets, key=lambda budget: budget.n_bytes, default=None)


def probe_of(
    device: DevicePeak, probes: Sequence[ProbedOverhead], *, n_ranks: int
) -> ProbedOverhead | None:
    """The newest probe of a kind of device, of as many ranks, or else of a single one."""
    known = [
        probe
        for probe in probes
        if find_device(probe.device_name) == device and probe.n_ranks in (n_ranks, 1)
    ]
    return max(known, key=lambda one: (one.n_ranks, one.measured_unix_s), default=None)


def forecast_here(home: Home, *, environment: Mapping[str, str], alone: bool) -> Forecaster:
    """A forecaster for what is about to be launched.

    Args:
        home: the state folder.
        environment: of this process.
        alone: it will run on this machine; a cluster's nodes are not known.
    """
    gpu = local_gpu() if alone else None
    where = Where(
        device=gpu,
        ranks_per_node=None,
        node_budget_bytes=node_memory_bytes() if alone else None,
        probes=load_probes(home.probes),
    )
    shadows = Shadows(cache=home.shadows(environment), environment=environment)
    return Forecaster(shadows, where=where, environment=environment)
