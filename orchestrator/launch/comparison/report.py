"""The report of a comparison: ranked, written as Markdown and CSV, drawn as PNG and SVG.

Everything goes to an outbox, and from there to the tracking store.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.compare.entry import Entry
from orchestrator.compare.judge import judged
from orchestrator.compare.ranking import Ranking
from orchestrator.compare.report import report_markdown
from orchestrator.compare.report_csv import losses_csv, report_csv
from orchestrator.draw.comparison import draw_comparison
from orchestrator.track.outbox import Outbox
from orchestrator.units import as_duration

FOLDER = "report"
REPORT = f"{FOLDER}/comparison.md"
COMPARISON_DOCUMENT = f"{FOLDER}/comparison.json"
"""Names, baseline and varied keys of a comparison."""
CONTROLS_DOCUMENT = f"{FOLDER}/controls.json"
"""Precision -> losses of the baseline from weights moved by a bit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A report that is written."""

    ranking: Ranking
    path: Path
    """The Markdown file."""


def write_report(
    outbox: Outbox,
    ranking: Ranking,
    *,
    name: str,
    controls: Mapping[str, Sequence[float]],
    told: Sequence[tuple[str, str]] = (),
    plots: bool = True,
) -> Reported:
    """Write the report of strategies.

    Args:
        outbox: where it is kept.
        ranking: the strategies.
        name: what the report is called.
        controls: precision -> losses of the baseline from weights moved by a bit.
        told: more circumstances, in words.
        plots: draw it too; else plots that are there already stay.

    Raises:
        OSError: it cannot be written.
    """
    drawn = _draw(ranking, name=name, controls=controls) if plots else {}
    for file, content in drawn.items():
        outbox.add_bytes(f"{FOLDER}/{file}", content)
    there = {path.stem for path in (outbox.artifacts / FOLDER / "plots").glob("*.png")}
    circumstances = [*_circumstances(ranking), *told]
    text = report_markdown(ranking, name=name, circumstances=circumstances, plots=there)
    outbox.add_text(REPORT, text)
    outbox.add_text(f"{FOLDER}/comparison.csv", report_csv(ranking))
    outbox.add_text(f"{FOLDER}/losses.csv", losses_csv(ranking))
    return Reported(ranking=ranking, path=outbox.artifacts / REPORT)


def budget_of(entries: Iterable[Entry]) -> int | None:
    """What a device may hold by the forecasts of all entries; `None` where they do not agree."""
    forecasts = [entry.record.forecast for entry in entries if entry.record.forecast is not None]
    budgets = {forecast.get("budget_bytes") for forecast in forecasts}
    return budgets.pop() if len(budgets) == 1 else None


def rank_entries(
    entries: Sequence[Entry],
    *,
    baseline: str | None = None,
    controls: Mapping[str, Sequence[float]],
    varied: Iterable[str] = (),
) -> Ranking:
    """Judge entries under the budget that they were forecast for.

    Args:
        entries: the strategies.
        baseline: what the others are held against, if it is among them; `None`: the first.
        controls: precision -> losses of the baseline from weights moved by a bit.
        varied: keys that were varied on purpose.
    """
    names = {entry.name for entry in entries}
    return judged(
        entries,
        baseline=baseline if baseline in names else None,
        budget_bytes=budget_of(entries),
        controls={precision: tuple(losses) for precision, losses in controls.items()},
        varied=frozenset(varied),
    )


def _draw(
    ranking: Ranking, *, name: str, controls: Mapping[str, Sequence[float]]
) -> dict[str, bytes]:
    try:
        folded = {precision: tuple(losses) for precision, losses in controls.items()}
        return draw_comparison(ranking, name=name, controls=folded)
    except Exception as err:  # noqa: BLE001
        # Drawing is a library's work on whatever runs have left; the numbers are kept already.
        log.warning("the plots cannot be drawn: %s: %s", type(err).__name__, err)
        return {}


def _circumstances(ranking: Ranking) -> list[tuple[str, str]]:
    """What the numbers hold for, as far as all strategies share it."""
    entries = [row.entry for row in ranking.rows]
    ran = [entry for entry in entries if entry.record.ranks]
    if not ran:
        return []
    told: list[tuple[str, Any]] = [
        ("device", _shared(", ".join(entry.record.circumstances.devices) for entry in ran)),
        ("workers", _shared(entry.workers for entry in ran)),
        ("model", _shared(_kind(entry, "model", "family", "factory") for entry in ran)),
        ("parameters", _shared(f"{entry.n_params:,}" for entry in ran)),
        ("data", _shared(_kind(entry, "data", "source", "factory") for entry in ran)),
        ("global batch", _shared(f"{entry.global_batch_size} samples" for entry in ran)),
        ("optimizer steps", _shared(entry.record.steps for entry in ran if entry.is_ok)),
        ("rounds", _shared(len(entry.rounds) for entry in ran if entry.is_ok)),
        ("seed", _shared(entry.setting("training.seed") for entry in ran)),
        (
            "versions",
            _shared(
                ", ".join(f"{k} {v}" for k, v in entry.record.circumstances.versions.items())
                for entry in ran
            ),
        ),
        ("commit", _shared(entry.commit for entry in ran if entry.commit)),
        ("written", time.strftime("%Y-%m-%d %H:%M")),
    ]
    return [(key, str(value)) for key, value in told if value not in (None, "")]


def _kind(entry: Entry, section: str, *names: str) -> str | None:
    found = (entry.setting(f"{section}.{name}") for name in names)
    return next((str(value) for value in found if value), None)


def _shared(values: Iterable[Any]) -> Any:
    """What is the same everywhere; else all there are, if they are few."""
    different = list(dict.fromkeys(value for value in values if value is not None))
    if len(different) <= 1:
        return different[0] if different else None
    return ", ".join(map(str, different)) if len(different) <= 4 else f"{len(different)} kinds"


def took(seconds: float) -> tuple[str, str]:
    """How long a comparison took, as a circumstance."""
    return "took", as_duration(seconds)
