"""The strategies of a comparison: each a job with some keys changed, and a name for it. Pure."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.plan.launch_plan import strategy_name
from orchestrator.spec.grid import Changes, grid_changes, with_changes
from orchestrator.spec.job import JobSpec

NAMED_BY_STRATEGY = frozenset(
    {
        "zero.stage",
        "zero.offload_optimizer",
        "zero.offload_params",
        "zero.nvme_path",
        "training.precision",
        "training.activation_checkpointing",
    }
)
"""What a strategy's own name tells."""
_MICRO = "training.micro_batch_size"
_SHORT = {"training.gradient_accumulation_steps": "accum"}
_BAD = re.compile(r"[^A-Za-z0-9.-]+")
LONGEST_NAME = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One of a comparison's strategies."""

    name: str
    """No other of the comparison has it; letters, digits and `. - _`."""
    changes: Mapping[str, Any]
    """Dotted key -> what it is changed to."""
    spec: JobSpec
    """The job so changed."""


def strategies_of(spec: JobSpec) -> list[Strategy]:
    """List the strategies that a job's `compare:` asks for, in its order.

    A variant's own name stands; else names are made from how the strategy shards, and from what
    varies beside that: `zero2-optim-cpu-bf16-micro4`, `zero1-lr0.01`.

    Raises:
        ValueError: the job has no `compare:`, or a variant cannot be a job, as `load_job` makes
            sure.
    """
    if spec.compare is None:
        raise ValueError("the job has no compare section")
    all_changes = grid_changes(spec.compare)
    jobs = [_changed(spec, changes) for changes in all_changes]
    varied = varied_keys(all_changes)
    names = [
        str(changes["name"]) if "name" in changes else _name(job, changes, varied=varied)
        for job, changes in zip(jobs, all_changes, strict=True)
    ]
    return [
        Strategy(
            name=name,
            changes={key: value for key, value in changes.items() if key != "name"},
            spec=job,
        )
        for name, changes, job in zip(_told_apart(names), all_changes, jobs, strict=True)
    ]


def varied_keys(all_changes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys that strategies change, each once, in the order in which they come up."""
    keys = (key for changes in all_changes for key in changes if key != "name")
    return tuple(dict.fromkeys(keys))


def _changed(spec: JobSpec, changes: Changes) -> JobSpec:
    made = with_changes(spec, changes)
    if not isinstance(made, JobSpec):
        raise ValueError(f"{changes} is no job: {made}")
    return made


def _name(job: JobSpec, changes: Changes, *, varied: Sequence[str]) -> str:
    parts = [strategy_name(job)]
    if _MICRO in varied and job.training.micro_batch_size is not None:
        parts.append(f"micro{job.training.micro_batch_size}")
    others = [key for key in varied if key in changes and key not in NAMED_BY_STRATEGY | {_MICRO}]
    return "-".join([*parts, *(_told(key, changes[key], among=others) for key in others)])


def _told(key: str, value: Any, *, among: Sequence[str]) -> str:
    """A changed key in a name: `lr0.01`, `sgd`, `workers4`."""
    last = key.rpartition(".")[2]
    if sum(other.rpartition(".")[2] == last for other in among) > 1:
        last = key
    if isinstance(value, str):
        return _plain(value)
    shown = {True: "on", False: "off", None: "none"}.get(value) if _is_word(value) else None
    return _plain(_SHORT.get(key, last)) + (shown or _plain(_written(value)))


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return str(value)


def _plain(text: str) -> str:
    return _BAD.sub("_", text).strip("_.")


def _told_apart(names: Sequence[str]) -> list[str]:
    """Number names that come more than once, and shorten long ones."""
    short = [_plain(name)[:LONGEST_NAME] or "strategy" for name in names]
    seen: Counter[str] = Counter()
    taken = set(short)
    told: list[str] = []
    for name in short:
        seen[name] += 1
        own = name
        while seen[name] > 1 and own in (taken | set(told)):
            own = f"{name}.{seen[name]}"
            seen[name] += own in taken
        told.append(own)
    return told
