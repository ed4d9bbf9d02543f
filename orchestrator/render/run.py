"""What a person reads in the terminal: the plan, the result, the diagnosis. Pure text."""

from pathlib import Path

from orchestrator.forecast.comparison import comparison_text
from orchestrator.launch.doctor import Finding
from orchestrator.launch.run import Finished
from orchestrator.measure.ledger import unattributed_ratio
from orchestrator.measure.run_record import RankRow, RunRecord
from orchestrator.measure.table import ledger_table, rank_table
from orchestrator.plan.launch_plan import LaunchPlan
from orchestrator.render.hints import ui_command
from orchestrator.track.base import TrackedRun, run_link
from orchestrator.track.open import DEFAULT_PORT, HOST
from orchestrator.track.store import Store, embedded_store
from orchestrator.track.views import view_links
from orchestrator.units import as_duration, as_mib


def plan_text(plan: LaunchPlan) -> str:
    """The plan in a dozen lines."""
    spec, batch, resources = plan.spec, plan.batch, plan.resources
    model, data = spec.model, spec.data
    n_workers = f"{resources.workers} worker{'s' if resources.workers != 1 else ''}"
    rows = [
        ("model", f"{_what(model, 'family')}, {plan.n_params:,} parameters"),
        ("data", _what(data, "source")),
        ("strategy", f"{plan.strategy}, {spec.training.precision}, {spec.training.engine} engine"),
        (
            "batch",
            f"{batch.global_batch_size} = {batch.micro_batch_size} micro x "
            f"{batch.accumulation_steps} accumulation x {n_workers}",
        ),
        ("length", _length(plan)),
        (
            "runs on",
            f"{n_workers} on {resources.device}, {resources.cpus_per_worker:g} CPU each"
            + (", spread over the nodes" if resources.placement == "spread" else ""),
        ),
        *(("note", note) for note in plan.notes),
    ]
    return "\n".join([f"Plan of {spec.name}", *(f"  {key:<9} {value}" for key, value in rows)])


def _what(section: object, attribute: str) -> str:
    return str(getattr(section, attribute, None) or getattr(section, "factory", "?"))


def _length(plan: LaunchPlan) -> str:
    training = plan.spec.training
    if training.steps is not None:
        return f"{training.steps} optimizer steps"
    return f"{training.epochs} epoch{'s' if training.epochs != 1 else ''}"


def result_text(finished: Finished, *, look: str) -> str:
    """How it went: per-rank tables, totals, and where to look next."""
    record = finished.record
    blocks = []
    if record.ranks:
        blocks.append(rank_table(record.ranks))
    if (ledger := ledger_table(record.ranks)) is not None:
        blocks.append(f"What filled each rank's memory when it was fullest\n{ledger}")
    blocks.append("\n".join(f"  {key:<10} {value}" for key, value in _totals(record)))
    if finished.receipt is not None:
        blocks.append(comparison_text(finished.receipt))
    if finished.n_unsent:
        blocks.append(
            f"{finished.n_unsent} metric points did not reach the tracking store; "
            f"they are kept in {finished.folder}"
        )
    blocks.append(look)
    return "\n\n".join(blocks)


def _totals(record: RunRecord) -> list[tuple[str, str]]:
    rows = [("outcome", record.outcome), ("steps", str(record.steps))]
    if record.losses:
        rows.append(("loss", f"{record.losses[0]:.4f} at first, {record.losses[-1]:.4f} at last"))
    if record.evals:
        last = record.evals[-1]
        accuracy = "" if last.accuracy is None else f", accuracy {last.accuracy:.2%}"
        rows.append(("evaluation", f"loss {last.loss:.4f}{accuracy} on {last.n_samples:,} samples"))
    if record.samples_per_s is not None:
        tokens = "" if record.tokens_per_s is None else f", {record.tokens_per_s:,.0f} tokens/s"
        spread = record.samples_per_s_quartiles
        between = "" if spread is None else f" (half of them {spread[0]:,.1f} to {spread[1]:,.1f})"
        steps = record.circumstances.n_measured_steps
        rows.append(
            (
                "throughput",
                f"{record.samples_per_s:,.1f} samples/s{tokens}, median of {steps} steps{between}",
            )
        )
    if record.flops_per_s is not None:
        share = "" if record.mfu_ratio is None else f", {record.mfu_ratio:.1%} of the peak (MFU)"
        rows.append(("compute", f"{record.flops_per_s / 1e12:,.3f} TFLOP/s{share}"))
        if record.circumstances.peak_flops_source and record.mfu_ratio is not None:
            rows.append(("", f"peak: {record.circumstances.peak_flops_source}"))
    if record.fullest is not None:
        rows.append(("peak", _peak(record.fullest)))
    if record.skipped_steps:
        rows.append(("skipped", f"{record.skipped_steps} updates with a gradient not finite"))
    if record.first_step_s is not None:
        rows.append(("start", f"{as_duration(record.first_step_s)} to the first optimizer step"))
    return rows


def _peak(fullest: RankRow) -> str:
    text = f"{as_mib(fullest.peak_bytes)} of tensors on rank {fullest.rank}, the fullest"
    ratio = unattributed_ratio(fullest.ledger or {})
    return text if ratio is None else f"{text}; {ratio:.1%} of it unattributed"


def where_to_look(finished: Finished, *, store: Store, home: Path | None) -> str:
    """What to type to see the run where it is tracked.

    Args:
        finished: the run.
        store: the job's tracking store.
        home: the state folder, when it was given with the command.
    """
    tracked = finished.tracked
    if tracked is None:
        return f"Recorded in {finished.folder}; the tracking store was not reached"
    if store.database is None:
        if not store.uri.startswith(("http://", "https://")):
            return f"Look at it at {store.uri}"
        return f"Look at it at {run_link(store.uri, tracked)}\n{_views(store.uri, tracked)}"
    if store != embedded_store(finished.folder.parents[1]):
        return f"Recorded in {store.uri} as run {tracked.run_id}"
    base = f"http://{HOST}:{DEFAULT_PORT}"
    return (
        f"Look at it with: {ui_command(home)}\nthen open {run_link(base, tracked)}\n"
        f"{_views(base, tracked)}"
    )


def _views(base_url: str, tracked: TrackedRun) -> str:
    links = view_links(base_url, tracked)
    width = max(map(len, links))
    return "\n".join(f"  {name:<{width}}  {link}" for name, link in links.items())


def doctor_text(findings: list[Finding]) -> str:
    """What was found, a line each, and how to mend what is not well."""
    marks = {"ok": "ok     ", "optional": "note   ", "missing": "MISSING"}
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{marks[finding.level]}  {finding.name:<{width}}  {finding.found}")
        if finding.mend:
            lines.append(f"{'':<{width + 11}}{finding.mend}")
    return "\n".join(lines)
