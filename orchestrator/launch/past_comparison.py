"""What a comparison has told of itself in the tracking store.

With it a later report judges its runs as the comparison did.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.launch.comparison.report import COMPARISON_DOCUMENT, CONTROLS_DOCUMENT
from orchestrator.track.read import ArtifactsUnreadableError, PastRun, RunReader

_SUFFIX = " comparison"
"""Of the name of a comparison's run, behind that of its job."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PastComparison:
    """What a comparison has told of itself."""

    run_id: str
    name: str
    """Its job's."""
    baseline: str | None
    """The strategy that the others were held against; `None` where it did not say."""
    varied: tuple[str, ...]
    strategies: tuple[str, ...]
    controls: Mapping[str, tuple[float, ...]]


def comparisons_of(
    runs: Sequence[PastRun], known: Mapping[str, PastRun], reader: RunReader
) -> tuple[PastComparison, ...]:
    """The comparisons that runs were launched in."""
    found = []
    for run_id in dict.fromkeys(run.parent_run_id for run in runs):
        if run_id is None:
            continue
        try:
            parent = known[run_id] if run_id in known else reader.run(run_id)
        except UsageError:
            # Somebody has removed it.
            continue
        if parent.is_comparison:
            found.append(_comparison(parent, reader))
    return tuple(found)


def in_order(runs: Sequence[PastRun], comparisons: Sequence[PastComparison]) -> tuple[PastRun, ...]:
    """Runs as they were asked for, those of a comparison together and in its order."""

    def group(run: PastRun) -> str:
        return run.parent_run_id or run.run_id

    order = {one.run_id: one.strategies for one in comparisons}
    first: dict[str, int] = {}
    for n, run in enumerate(runs):
        first.setdefault(group(run), n)

    def place(run: PastRun) -> tuple[int, int]:
        strategies = order.get(group(run), ())
        at = strategies.index(run.name) if run.name in strategies else len(strategies)
        return first[group(run)], at

    return tuple(sorted(runs, key=place))


def _comparison(parent: PastRun, reader: RunReader) -> PastComparison:
    try:
        kept = reader.documents(parent, (COMPARISON_DOCUMENT, CONTROLS_DOCUMENT))
        told, controls = (
            _mapping(kept.get(name)) for name in (COMPARISON_DOCUMENT, CONTROLS_DOCUMENT)
        )
        strategies = tuple(map(str, told.get("strategies") or ()))
        baseline = told.get("baseline") or next(iter(strategies), None)
        return PastComparison(
            run_id=parent.run_id,
            name=str(told.get("name") or parent.name.removesuffix(_SUFFIX)),
            baseline=None if baseline is None else str(baseline),
            varied=tuple(map(str, told.get("varied") or ())),
            strategies=strategies,
            controls={
                str(precision): tuple(math.nan if loss is None else float(loss) for loss in losses)
                for precision, losses in controls.items()
            },
        )
    except (ArtifactsUnreadableError, ValueError, TypeError) as err:
        log.warning("what comparison %s varied is not known: %s", parent.name, err)
        return PastComparison(
            run_id=parent.run_id,
            name=parent.name.removesuffix(_SUFFIX),
            baseline=None,
            varied=(),
            strategies=(),
            controls={},
        )


def _mapping(content: bytes | None) -> dict[str, Any]:
    value = {} if content is None else json.loads(content)
    if not isinstance(value, dict):
        raise TypeError("its documents are of another version")
    return value
