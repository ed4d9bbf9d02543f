"""The variants a `compare:` section asks for, as changes to a job and as jobs.

Axes give their product less what is excluded; variants stand for themselves. Pure.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from orchestrator.spec.check import check_values
from orchestrator.spec.finding import Finding, dotted_key
from orchestrator.spec.job import JobSpec
from orchestrator.spec.keys import split_key, with_value
from orchestrator.spec.sections import CompareSection
from orchestrator.spec.yaml_tree import DEEPEST

Changes = dict[str, Any]


def grid_changes(compare: CompareSection) -> list[Changes]:
    """List what each variant changes: dotted key -> value, and `name` where a variant has one.

    Args:
        compare: at most 2,000 combinations, as `load_job` makes sure.
    """
    if compare.variants:
        return [dict(variant) for variant in compare.variants]
    combinations = (
        dict(zip(compare.axes, values, strict=True)) for values in product(*compare.axes.values())
    )
    return [
        changes
        for changes in combinations
        if not any(_covers(excluded, changes) for excluded in compare.exclude)
    ]


def with_changes(spec: JobSpec, changes: Mapping[str, Any]) -> JobSpec | tuple[Finding, ...]:
    """Replace keys of a job, or say why the outcome is none.

    Args:
        spec: the job.
        changes: dotted key -> value; a variant's `name` is not the job's and is left out.
    """
    values: dict[str, Any] = spec.model_dump(exclude_unset=True, exclude={"compare"})
    for key, value in changes.items():
        if key == "name":
            continue
        path = split_key(key)
        if len(path) > DEEPEST:
            message = f"the key has more than {DEEPEST} parts; write one of the job's keys"
            return (Finding(key=key, message=message),)
        try:
            values = with_value(values, path, value)
        except ValueError as err:
            parent = dotted_key(split_key(str(err)))
            message = f"{parent} is not a mapping; vary {parent} itself"
            return (Finding(key=key, message=message),)
    return check_values(values)


def same_value(one: Any, other: Any) -> bool:
    """Tell whether two values are one setting; 1 and true are equal in Python, and are not."""
    return type(one) is type(other) and one == other


def _covers(excluded: Mapping[str, Any], changes: Changes) -> bool:
    return all(key in changes and same_value(changes[key], excluded[key]) for key in excluded)
