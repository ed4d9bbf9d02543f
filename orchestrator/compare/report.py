"""The report of a comparison in Markdown, for someone who was not there. Pure text."""

from collections.abc import Collection, Iterable, Sequence

from orchestrator.compare.columns import Column, escaped, markdown_table, word_column
from orchestrator.compare.conclusions import same_loss_sentence, stopped, winner_reasons
from orchestrator.compare.ranking import Ranking
from orchestrator.compare.report_columns import (
    forecast_columns,
    loss_columns,
    rank_columns,
    setting_columns,
    step_columns,
)
from orchestrator.compare.strategy_columns import ledger_columns, most_shrunk, strategy_columns
from orchestrator.units import as_bytes

_IMAGES = {
    "memory_throughput": "Peak memory and throughput of each strategy",
    "ledger": "What fills the fullest rank's memory under each strategy",
    "steps": "Where a step goes under each strategy",
    "ranks": "Peak memory and throughput of each rank",
    "losses": "The losses of each strategy",
    "forecast": "Forecast and measured peaks",
}
"""Name of a plot -> what it shows."""
_METHOD = (
    "The order of samples is that of the whole job, so that under every strategy the optimizer "
    "sees the same global batches, however they are split over ranks and micro-batches.",
    "**fastest** has the most samples/s of those that fit the budget, where one is given, or is "
    "not shown to be slower than that one and has a smaller peak; "
    "**smallest** has the smallest peak; **balanced** has the most samples/s for each byte of its "
    "peak.",
    "**peak** is the most that tensors held at once on the device of the fullest rank, in MiB "
    "(2**20 bytes). On a CPU run it is what an accelerator would hold.",
    "**host** and **NVMe** are what the same rank keeps beside the device: offloaded weights, "
    "gradients and optimizer state with the blocks they pass through.",
    "**samples/s** is of the whole job, data, communication and logging included: the median over "
    "the measured steps of all rounds. First steps, and steps in which memory was traced, are left "
    "out.",
    "**95 % interval** is where that median lies with 95 % confidence, by bootstrap. Where the "
    "interval of the ratio to the baseline contains 1, the table says *no difference shown*: the "
    "two may be equally fast.",
    "A star (\\*) marks the **Pareto front**: no other strategy that ran to its end has both a "
    "smaller peak and more samples/s.",
    "**same loss** holds the loss of every step against the baseline's. *Within rounding* is as "
    "far apart as adding the same numbers in another order takes this training; *DIFFERENT* is "
    "further, so that the strategy changed what is learned.",
    "A dash is what is not known.",
)


def report_markdown(
    ranking: Ranking,
    *,
    name: str,
    circumstances: Sequence[tuple[str, str]],
    plots: Collection[str],
) -> str:
    """Write the report.

    Args:
        ranking: the strategies.
        name: of the comparison.
        circumstances: what the numbers hold for, a name and a value each: devices, versions.
        plots: names of the images that lie in `plots/` beside the report, without `.png`.
    """
    n = len(ranking.rows)
    sections = [
        [f"# {escaped(name)}: {n} sharding strateg{'ies' if n != 1 else 'y'} compared"],
        _answer(ranking),
        _circumstances(circumstances),
        _section("Memory and throughput", _costs(ranking), image="memory_throughput", plots=plots),
        _section("What did not run to its end", _failures(ranking), plots=plots),
        _section("What each strategy is", _settings(ranking), plots=plots),
        _section("What fills the memory", _ledger(ranking), image="ledger", plots=plots),
        _section("Where a step goes", _steps(ranking), image="steps", plots=plots),
        _section("How even the ranks are", _ranks(ranking), image="ranks", plots=plots),
        _section("Whether the losses are the same", _losses(ranking), image="losses", plots=plots),
        _section("Forecast and measurement", _forecasts(ranking), image="forecast", plots=plots),
        _section("What else differs between the runs", _differences(ranking), plots=plots),
        _section("How to read this", [_listed(_METHOD)], plots=plots),
    ]
    return "\n\n".join(block for blocks in sections for block in blocks) + "\n"


def _section(
    title: str, blocks: Sequence[str], *, plots: Collection[str], image: str | None = None
) -> list[str]:
    """A section under its heading; nothing where it has neither text nor image."""
    shown = [*blocks]
    if image is not None and image in plots:
        shown.append(f"![{_IMAGES[image]}](plots/{image}.png)")
    return [f"## {title}", *shown] if shown else []


def _table(columns: Sequence[Column] | None) -> list[str]:
    return [markdown_table(columns)] if columns else []


def _listed(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _answer(ranking: Ranking) -> list[str]:
    blocks = ["## The answer"]
    if ranking.not_ranked:
        blocks.append("These runs are **not ranked**:")
        blocks.append(_listed(map(escaped, ranking.not_ranked)))
    else:
        objectives, names, reasons = zip(*winner_reasons(ranking), strict=True)
        columns = [
            word_column("objective", objectives),
            word_column("strategy", names),
            word_column("why", reasons),
        ]
        blocks += _table(columns)
        if ranking.budget_bytes is not None:
            blocks.append(f"A device may hold {as_bytes(ranking.budget_bytes)}.")
    blocks.append(escaped(same_loss_sentence(ranking)))
    if failures := stopped(ranking.rows):
        told = ", ".join(f"{one.name} ({one.outcome})" for one in failures)
        blocks.append(
            f"{len(failures)} of {len(ranking.rows)} did not run to their end: {escaped(told)}."
        )
    return blocks


def _circumstances(circumstances: Sequence[tuple[str, str]]) -> list[str]:
    if not circumstances:
        return []
    keys, values = zip(*circumstances, strict=True)
    return [
        "## Circumstances",
        *_table([word_column("what", keys), word_column("value", values)]),
    ]


def _costs(ranking: Ranking) -> list[str]:
    if not ranking.rows:
        return ["No strategy has run."]
    if ranking.baseline is None:
        note = "There is no baseline: nothing that ran to its end to hold the others against."
    else:
        note = f"Held against {escaped(ranking.baseline)}, the baseline."
    return [note, *_table(strategy_columns(ranking))]


def _failures(ranking: Ranking) -> list[str]:
    failures = stopped(ranking.rows)
    if not failures:
        return []
    return _table(
        [
            word_column("strategy", (one.name for one in failures)),
            word_column("outcome", (one.outcome for one in failures)),
            word_column("cause; what to do", (one.cause for one in failures)),
        ]
    )


def _settings(ranking: Ranking) -> list[str]:
    return _table(setting_columns(ranking)) if ranking.rows else []


def _ledger(ranking: Ranking) -> list[str]:
    columns = ledger_columns(ranking)
    if columns is None:
        return []
    blocks = ["MiB of the fullest rank at its peak; the categories add up to it.", *_table(columns)]
    if shrunk := most_shrunk(ranking):
        blocks.append(f"What shrank most against {escaped(ranking.baseline or '')}:")
        blocks.append(_listed(map(escaped, shrunk)))
    return blocks


def _steps(ranking: Ranking) -> list[str]:
    columns = step_columns(ranking)
    if columns is None:
        return []
    note = "Medians in ms over the measured steps of the slowest rank."
    if any(column.title == "communication" for column in columns):
        note += (
            " Communication lies inside the other parts, waiting for other ranks included, and is"
            " measured only in steps that are traced."
        )
    return [note, *_table(columns)]


def _ranks(ranking: Ranking) -> list[str]:
    return _table(rank_columns(ranking))


def _losses(ranking: Ranking) -> list[str]:
    columns = loss_columns(ranking)
    if columns is None:
        return []
    against = "" if ranking.baseline is None else f", against {escaped(ranking.baseline)}'s"
    return [f"The loss of each step{against}. All of them are in the CSV.", *_table(columns)]


def _forecasts(ranking: Ranking) -> list[str]:
    columns = forecast_columns(ranking)
    if columns is None:
        return []
    return [
        "Peaks of one rank. The error is forecast less measured, as a share of the measured.",
        *_table(columns),
    ]


def _differences(ranking: Ranking) -> list[str]:
    if not ranking.differences:
        return ["Nothing besides what was varied."]
    return [_listed(map(escaped, ranking.differences))]
