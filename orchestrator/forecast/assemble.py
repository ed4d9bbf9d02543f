"""A Forecast from its parts: shadow run or closed form, device, node, budget. Pure arithmetic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.forecast.closed_form import ClosedForm, closed_form
from orchestrator.forecast.device_overhead import DeviceOverhead, ProbedOverhead, device_overhead
from orchestrator.forecast.forecast import Budget, CrossCheck, Forecast
from orchestrator.forecast.host import host_forecast
from orchestrator.forecast.layout import layout_of
from orchestrator.forecast.profile import ModelProfile
from orchestrator.forecast.sent import sent_terms
from orchestrator.forecast.setup import Setup
from orchestrator.forecast.shadow_result import ShadowResult
from orchestrator.forecast.states import ideal_states_bytes, resting_parts
from orchestrator.forecast.step_estimate import estimate_step, flops_of
from orchestrator.forecast.terms import n_bytes_of
from orchestrator.forecast.verdict import Interval, Verdict, around, in_words, judge, worse
from orchestrator.forecast.wire import WireTerm, wire_terms
from orchestrator.measure.device_table import DevicePeak
from orchestrator.measure.ledger import Ledger
from orchestrator.units import as_bytes

SHADOW_RATIO = 0.01
"""How far a rank on a CPU may be from its shadow: the bound that the accuracy table is held to."""
CLOSED_FORM_RATIO = 0.10
"""How far it may be from the closed form."""
RESERVED_RATIO = 0.05
"""What CUDA's allocator may take beyond its simulation; not yet shown on a GPU."""
CROSS_CHECK_RATIO = 0.01
"""A closed form that is further from the shadow run than this is told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a forecast is about."""

    setup: Setup
    strategy: str
    device: str
    """`cpu`, `cuda`, or a device's name."""
    n_params: int
    """Trainable parameters."""
    n_elements: int
    """All parameters, frozen ones too."""
    global_batch_size: int
    device_peak: DevicePeak | None
    """The GPU's data sheet, where it is known."""
    budget: Budget | None
    node_budget_bytes: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a forecast is made of."""

    shadow: ShadowResult | None
    why_closed_form: str | None
    profile: ModelProfile | None
    probed: ProbedOverhead | None
    rank: int = 0
    """For the closed form; a shadow run has its own."""


def assemble(asked: Asked, evidence: Evidence) -> Forecast:
    """Put a forecast together.

    Args:
        asked: what it is about.
        evidence: what is known.
    """
    setup, shadow, profile = asked.setup, evidence.shadow, evidence.profile
    rank = evidence.rank if shadow is None else shadow.rank
    # In tensors, as a shadow run counts them; how pinned blocks are rounded is told beside.
    exact = replace(setup, pinned=False)
    closed = closed_form(exact, profile=profile, n_params=asked.n_params, rank=rank)
    ledgers = closed.phase_ledgers if shadow is None else _by_phase(shadow.peak_ledgers)
    host_ledger = closed.host_ledger if shadow is None else shadow.host_ledger
    peak_bytes = max(sum(ledger.values()) for ledger in ledgers.values())
    overhead = _overhead(setup, evidence.probed)
    needed = _needed(setup, shadow, peak_bytes=peak_bytes, overhead=overhead)
    host = host_forecast(
        setup,
        offloaded_bytes=sum(host_ledger.values()),
        pinned_rounding_bytes=_rounding_bytes(asked, profile, rank=rank),
        device_peak_bytes=peak_bytes,
        n_elements=asked.n_elements,
    )
    known = shadow is not None or closed.activations_known
    verdict, reason = _verdict(asked, needed, host.node_bytes, activations_known=known)
    wire = _wire(asked, shadow, profile)
    flops = flops_of(setup, shadow=shadow, profile=profile)
    return Forecast(
        strategy=asked.strategy,
        workers=setup.n_ranks,
        device=asked.device,
        rank=rank,
        method="closed_form" if shadow is None else "shadow",
        why_closed_form=evidence.why_closed_form if shadow is None else None,
        n_params=asked.n_params,
        global_batch_size=asked.global_batch_size,
        phase_ledgers=ledgers,
        host_ledger=host_ledger,
        nvme_bytes=_nvme_bytes(setup, closed, shadow),
        activations_known=known,
        cross_check=_cross_check(closed, peak_bytes=peak_bytes) if shadow and profile else None,
        device_memory=None if shadow is None else shadow.device_memory,
        overhead=overhead,
        needed=needed,
        host=host,
        wire=wire,
        flops_per_step=flops,
        step_time=estimate_step(
            setup, wire, flops=flops, n_params=asked.n_params, device=asked.device_peak
        ),
        ideal_states_bytes=ideal_states_bytes(
            asked.n_params, stage=setup.stage, n_ranks=setup.n_ranks
        ),
        terms=closed.terms,
        budget=asked.budget,
        node_budget_bytes=asked.node_budget_bytes,
        verdict=verdict,
        reason=reason,
        remedy=None,
        notes=(
            *asked.notes,
            *_cost_of_stage_2(setup, wire),
            *_notes(closed, shadow, peak_bytes=peak_bytes, profile=profile),
        ),
    )


def _by_phase(ledgers: dict[str, Ledger]) -> dict[str, Ledger]:
    order = ("init", "forward", "backward", "step")
    return {phase: ledgers[phase] for phase in order if phase in ledgers}


def _overhead(setup: Setup, probed: ProbedOverhead | None) -> DeviceOverhead | None:
    return device_overhead(setup.n_ranks, probed=probed) if setup.device == "cuda" else None


def _needed(
    setup: Setup,
    shadow: ShadowResult | None,
    *,
    peak_bytes: int,
    overhead: DeviceOverhead | None,
) -> Interval:
    ratio = CLOSED_FORM_RATIO if shadow is None else SHADOW_RATIO
    if setup.device == "cpu" or overhead is None:
        return around(peak_bytes, below_ratio=ratio, above_ratio=ratio)
    if shadow is None or shadow.device_memory is None:
        tensors = around(peak_bytes, below_ratio=ratio, above_ratio=ratio)
    else:
        reserved = shadow.device_memory.reserved_peak_bytes
        tensors = around(reserved, below_ratio=0, above_ratio=RESERVED_RATIO)
    return tensors.plus(*overhead.total_bytes)


def _rounding_bytes(asked: Asked, profile: ModelProfile | None, *, rank: int) -> int:
    """What page-locked blocks take beyond their tensors, by the closed form."""
    if not asked.setup.pinned:
        return 0
    layout = layout_of(profile, n_params=asked.n_params, n_ranks=asked.setup.n_ranks, rank=rank)
    pinned, exact = (
        n_bytes_of(
            part
            for part in resting_parts(
                replace(asked.setup, pinned=is_pinned), layout, buffer_bytes=0
            )
            if part.place == "host"
        )
        for is_pinned in (True, False)
    )
    return pinned - exact


def _nvme_bytes(setup: Setup, closed: ClosedForm, shadow: ShadowResult | None) -> int | None:
    if "nvme" not in (setup.offload_optimizer, setup.offload_params):
        return None
    return closed.nvme_bytes if shadow is None else shadow.nvme_bytes


def _cross_check(closed: ClosedForm, *, peak_bytes: int) -> CrossCheck:
    peaks = {phase: sum(ledger.values()) for phase, ledger in closed.phase_ledgers.items()}
    return CrossCheck(
        phase_peak_bytes=peaks, difference_ratio=(max(peaks.values()) - peak_bytes) / peak_bytes
    )


def _wire(
    asked: Asked, shadow: ShadowResult | None, profile: ModelProfile | None
) -> tuple[WireTerm, ...]:
    if shadow is not None:
        return sent_terms(shadow, n_ranks=asked.setup.n_ranks)
    return wire_terms(asked.setup, profile=profile, n_params=asked.n_params)


def _verdict(
    asked: Asked, needed: Interval, node: Interval, *, activations_known: bool
) -> tuple[Verdict, str]:
    verdict, reasons = Verdict.FITS, []
    if asked.budget is not None:
        limit = asked.budget.n_bytes
        verdict = judge(needed, budget_bytes=limit)
        reasons.append(in_words(needed, budget_bytes=limit, of=asked.budget.of))
    if asked.node_budget_bytes is not None:
        on_node = judge(node, budget_bytes=asked.node_budget_bytes)
        ranks = asked.setup.ranks_per_node
        if on_node is not Verdict.FITS or asked.budget is None:
            of = f"of the node's memory for {ranks} rank{'s' if ranks > 1 else ''}"
            reasons.append(in_words(node, budget_bytes=asked.node_budget_bytes, of=of))
        verdict = worse(verdict, on_node)
    if not reasons:
        return verdict, "no budget is known"
    if not activations_known:
        # There is room for them, or not: that is not known.
        verdict = worse(verdict, Verdict.TIGHT)
        reasons.append("activations come on top")
    return verdict, "; ".join(reasons)


def _cost_of_stage_2(setup: Setup, wire: Sequence[WireTerm]) -> Iterator[str]:
    """What DeepSpeed's stage 2 sends more than stage 1, which reduces once a step."""
    n_micro = setup.accumulation_steps
    reduced = sum(term.wire_bytes for term in wire if term.collective == "all_reduce")
    if setup.stage == 2 and n_micro > 1 and setup.multi_rank_bucket_allreduce and reduced:
        more = reduced * (n_micro - 1) // n_micro
        yield (
            f"stage 2 all-reduces every one of {n_micro} micro-batches: "
            f"stage 1 would send {as_bytes(more)} less a step"
        )


def _notes(
    closed: ClosedForm,
    shadow: ShadowResult | None,
    *,
    peak_bytes: int,
    profile: ModelProfile | None,
) -> Iterator[str]:
    if shadow is None:
        if not closed.activations_known:
            yield "activations are not in it: they need the model itself"
        return
    if not shadow.steps_agree:
        yield "the second and the third step of the shadow run differ; the third one is told"
    if shadow.scratch_unknown_bytes:
        yield (
            "operations on tensors of up to "
            f"{as_bytes(shadow.scratch_unknown_bytes)} were not tried for what they take themselves"
        )
    if profile is not None:
        check = _cross_check(closed, peak_bytes=peak_bytes)
        if abs(check.difference_ratio) > CROSS_CHECK_RATIO:
            yield (
                f"the closed form says {check.difference_ratio:+.1%} of that peak; "
                "the shadow run is taken"
            )
