"""Rules for a job's `compare:` section: real keys, values that fit them, variants that can run.

Every variant is built and checked here, so that a comparison does not stop half-way. Pure.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.spec.finding import Finding, did_you_mean, join_key, show_text, show_value
from orchestrator.spec.grid import Changes, grid_changes, same_value, with_changes
from orchestrator.spec.job import JobSpec
from orchestrator.spec.keys import split_key
from orchestrator.spec.rules import contradictions, idle_settings
from orchestrator.spec.sections import CompareSection

MOST_COMBINATIONS = 2000
_MOST_REPORTED = 5
_FIXED = ("compare", "tracking")
"""Sections that are the comparison's own: its strategies are tracked beside each other."""


def compare_findings(spec: JobSpec) -> tuple[Finding, ...]:
    """Find what is wrong with a job's `compare:` section.

    Args:
        spec: a job without contradictions of its own.
    """
    if spec.compare is None:
        return ()
    found = tuple(_shape(spec.compare))
    found = found or tuple(_each_value(spec, spec.compare))
    return found or tuple(_each_combination(spec, spec.compare))


def idle_in_all(spec: JobSpec) -> tuple[Finding, ...]:
    """Find the settings that neither the job nor any variant of it uses."""
    idle = idle_settings(spec)
    if not idle or spec.compare is None:
        return idle
    for changes in grid_changes(spec.compare):
        variant = with_changes(spec, changes)
        if isinstance(variant, JobSpec):
            still = {finding.key for finding in idle_settings(variant)}
            idle = tuple(finding for finding in idle if finding.key in still)
    return idle


def _shape(compare: CompareSection) -> Iterator[Finding]:
    """Check the section itself, before any value in it."""
    if not compare.axes and not compare.variants:
        message = "nothing to compare; write axes: {zero.stage: [0, 1, 2, 3]}, or variants"
        yield Finding(key="compare", message=message)
    if compare.axes and compare.variants:
        message = "axes are given too; keep one of the two"
        yield Finding(key="compare.variants", message=message)
    n_combinations = math.prod(len(values) for values in compare.axes.values())
    if max(n_combinations, len(compare.variants)) > MOST_COMBINATIONS:
        key = "compare.axes" if compare.axes else "compare.variants"
        n = max(n_combinations, len(compare.variants))
        message = f"{n:,} runs; write fewer values, at most {MOST_COMBINATIONS:,} runs"
        yield Finding(key=key, message=message)
    yield from _axes(compare)
    yield from _exclusions(compare)
    yield from _names(compare)


def _axes(compare: CompareSection) -> Iterator[Finding]:
    for axis, values in compare.axes.items():
        key = join_key("compare.axes", axis)
        if not values:
            yield Finding(key=key, message="no values; give at least one, or leave the axis out")
        repeated = next((value for n, value in enumerate(values) if _in(value, values[:n])), None)
        if repeated is not None:
            message = f"{show_value(repeated)} stands there twice; keep one"
            yield Finding(key=key, message=message)
        if axis == "name" or split_key(axis)[0] in _FIXED:
            yield Finding(key=key, message="cannot vary; choose another key")
    for number, variant in enumerate(compare.variants):
        for name in variant:
            if split_key(name)[0] in _FIXED:
                key = join_key(f"compare.variants[{number}]", name)
                yield Finding(key=key, message="cannot vary; choose another key")


def _exclusions(compare: CompareSection) -> Iterator[Finding]:
    axes = list(compare.axes)
    for number, excluded in enumerate(compare.exclude):
        key = f"compare.exclude[{number}]"
        if not excluded:
            yield Finding(key=key, message="excludes everything; name a key and a value")
        for axis, value in excluded.items():
            if axis not in compare.axes:
                names = ", ".join(join_key("", name) for name in axes)
                known = f"the axes are {names}" if axes else "there are no axes"
                message = f"not an axis; {did_you_mean(axis, axes)}{known}"
                yield Finding(key=join_key(key, axis), message=message)
            elif not _in(value, compare.axes[axis]):
                message = f"{show_value(value)} is no value of this axis; leave it out"
                yield Finding(key=join_key(key, axis), message=message)


def _names(compare: CompareSection) -> Iterator[Finding]:
    names: list[str] = []
    for number, variant in enumerate(compare.variants):
        key = f"compare.variants[{number}]"
        name = variant.get("name")
        if not [changed for changed in variant if changed != "name"] and "name" not in variant:
            message = (
                "changes nothing; write a key such as zero.stage: 3, or a name for the job as it is"
            )
            yield Finding(key=key, message=message)
        if "name" not in variant:
            continue
        if not isinstance(name, str) or not name.strip():
            message = f"expected text, got {show_value(name)}; write a name such as small-batch"
            yield Finding(key=f"{key}.name", message=message)
        elif name in names:
            message = f"{show_text(name)} stands there twice; choose another name"
            yield Finding(key=f"{key}.name", message=message)
        else:
            names.append(name)


def _each_value(spec: JobSpec, compare: CompareSection) -> Iterator[Finding]:
    """Check keys and values: each of an axis alone, a variant's together."""
    for axis, values in compare.axes.items():
        key = join_key("compare.axes", axis)
        for value in values:
            yield from _translated(with_changes(spec, {axis: value}), {axis: key})
    for number, variant in enumerate(compare.variants):
        key = f"compare.variants[{number}]"
        keys = {name: join_key(key, name) for name in variant if name != "name"}
        yield from _translated(with_changes(spec, variant), keys, otherwise=key)


def _translated(
    outcome: JobSpec | tuple[Finding, ...], keys: Mapping[str, str], *, otherwise: str = ""
) -> Iterator[Finding]:
    """Report findings at the changed key that caused them."""
    if isinstance(outcome, JobSpec):
        return
    for finding in outcome:
        cause = next((name for name in keys if _same_or_below(finding.key, name)), None)
        if cause == finding.key:
            yield Finding(key=keys[cause], message=finding.message)
        else:
            key = keys[cause] if cause else otherwise or next(iter(keys.values()))
            yield Finding(key=key, message=f"{finding.key}: {finding.message}")


def _each_combination(spec: JobSpec, compare: CompareSection) -> Iterator[Finding]:
    """Check the rules across keys for every variant that is left."""
    all_changes = grid_changes(compare)
    if not all_changes:
        yield Finding(key="compare.exclude", message="leaves nothing to compare; exclude less")
    n_reported = 0
    for number, changes in enumerate(all_changes):
        variant = with_changes(spec, changes)
        found = contradictions(variant) if isinstance(variant, JobSpec) else variant
        key = "compare.axes" if compare.axes else f"compare.variants[{number}]"
        for finding in found[:1]:
            n_reported += 1
            if n_reported <= _MOST_REPORTED:
                yield Finding(key=key, message=_combination(changes, finding, compare))
    if n_reported > _MOST_REPORTED:
        message = f"{n_reported - _MOST_REPORTED} more combinations that cannot run; exclude them"
        yield Finding(key="compare.axes" if compare.axes else "compare.variants", message=message)


def _combination(changes: Changes, finding: Finding, compare: CompareSection) -> str:
    shown = ", ".join(f"{join_key('', key)}: {_written(value)}" for key, value in changes.items())
    if not compare.axes:
        return f"{finding.key}: {finding.message}"
    return f"{{{shown}}} cannot run ({finding.key}: {finding.message}); or add it to exclude"


def _written(value: Any) -> str:
    return join_key("", value) if isinstance(value, str) else show_value(value)


def _in(value: Any, values: list[Any]) -> bool:
    return any(same_value(value, other) for other in values)


def _same_or_below(key: str, parent: str) -> bool:
    return key == parent or key.startswith((f"{parent}.", f"{parent}["))
