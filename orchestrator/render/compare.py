"""What a person reads of a comparison: what will run, how it came out, where to look. Pure text."""

from collections.abc import Sequence
from pathlib import Path

from orchestrator.compare.table import comparison_table, ledger_by_strategy, verdicts
from orchestrator.launch.comparison.planned import PlannedStrategy
from orchestrator.launch.comparison.record import Compared
from orchestrator.measure.columns import aligned_text
from orchestrator.render.hints import as_typed, ui_command
from orchestrator.track.base import TrackedRun, run_link
from orchestrator.track.comparison_view import comparison_link
from orchestrator.track.open import DEFAULT_PORT, HOST
from orchestrator.track.store import Store, embedded_store
from orchestrator.units import as_duration, as_mib


def planned_text(planned: Sequence[PlannedStrategy], *, name: str) -> str:
    """What will run: a line a strategy, with its forecast where there is one."""
    n = len(planned)
    lines = [["strategy", "workers", "micro x accum.", "forecast peak", "verdict"]]
    for one in planned:
        batch, made = one.plan.batch, one.plan.forecast
        said = [made.verdict.value] if made is not None else []
        lines.append(
            [
                one.name,
                str(batch.workers),
                f"{batch.micro_batch_size} x {batch.accumulation_steps}",
                "-" if made is None else as_mib(made.peak_bytes),
                ", ".join([*said, *(["not run"] if one.infeasible else [])]),
            ]
        )
    table = aligned_text(lines, words=[True, False, False, False, True])
    indented = "\n".join(f"  {line}" for line in table.splitlines())
    return f"Comparison of {name}: {n} strateg{'ies' if n != 1 else 'y'}\n{indented}\n"


def compared_text(compared: Compared, *, store: Store, home: Path | None, width: int | None) -> str:
    """How a comparison came out, and what to type to look at it.

    Args:
        compared: it.
        store: the job's tracking store.
        home: the state folder, when it was given with the command.
        width: columns of the terminal; `None`: as many as it takes.
    """
    ranking = compared.reported.ranking
    blocks = []
    if compared.interrupted:
        blocks.append(_interrupted(compared))
    if ranking.rows:
        blocks.append(comparison_table(ranking, width=width))
        if (ledgers := ledger_by_strategy(ranking)) is not None:
            blocks.append(f"What filled the fullest rank's memory, MiB\n{ledgers}")
        blocks.append(verdicts(ranking))
    if details := _details(compared):
        blocks.append(details)
    if compared.n_unsent:
        blocks.append(
            f"{compared.n_unsent} metric points did not reach the tracking store; "
            f"they are kept in {compared.folder}"
        )
    blocks.append(_look(compared, store=store, home=home))
    return "\n\n".join(block for block in blocks if block)


def _interrupted(compared: Compared) -> str:
    n_complete = sum(one.is_complete for one in compared.contestants)
    return (
        f"Interrupted: {n_complete} of {len(compared.contestants)} strategies are complete; "
        "the same command goes on with what is missing"
    )


def _details(compared: Compared) -> str:
    """Where to read what the ranks of failed strategies said."""
    told = {
        one.name: path
        for one in compared.contestants
        if (path := one.outbox.artifacts / "logs" / "failure.txt").is_file()
    }
    width = max(map(len, told), default=0)
    lines = [f"  {name:<{width}}  {as_typed(path)}" for name, path in told.items()]
    return "\n".join(["details of what failed", *lines]) if lines else ""


def _look(compared: Compared, *, store: Store, home: Path | None) -> str:
    report = "report so far" if compared.interrupted else "report, with its plots and tables"
    lines = [
        f"Took {as_duration(compared.seconds)}. The {report}: {as_typed(compared.reported.path)}"
    ]
    tracked = compared.tracked
    if tracked is None:
        lines.append(
            f"The tracking store was not reached; everything is kept in {as_typed(compared.folder)}"
        )
    elif store.database is None:
        if store.uri.startswith(("http://", "https://")):
            lines += _links(store.uri, tracked)
        else:
            lines.append(f"Look at it at {store.uri}")
    elif store != embedded_store(compared.folder.parents[1]):
        lines.append(f"Recorded in {store.uri} as run {tracked.run_id}")
    else:
        lines.append(f"Look at it with: {ui_command(home)}")
        lines += _links(f"http://{HOST}:{DEFAULT_PORT}", tracked)
    return "\n".join(lines)


def _links(base_url: str, tracked: TrackedRun) -> list[str]:
    return [
        f"  side by side    {comparison_link(base_url, tracked)}",
        f"  report and log  {run_link(base_url, tracked)}",
    ]
