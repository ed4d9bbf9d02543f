"""Which runs can be held against each other: what differs between them, and what follows from it.

Reasons are words that stand after a verdict or in a list. Pure.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.compare.entry import Entry, flat_settings

GLOBAL_BATCH = "training.global_batch_size"
SAME_WORK = ("model", "data", GLOBAL_BATCH, "training.loss")
"""What has to be equal for memory and throughput to say something of the strategies."""
SAME_TRAINING = (
    "model",
    "data",
    "training.seed",
    GLOBAL_BATCH,
    "training.optimizer",
    "training.schedule",
    "training.gradient_clipping",
    "training.loss",
)
"""What has to be equal, besides, for the losses to be."""
LENGTH = ("training.steps", "training.epochs")
"""Only a rate that falls towards the end of a run depends on where that is."""
STRATEGY = (
    "zero",
    "deepspeed",
    "training.micro_batch_size",
    "training.gradient_accumulation_steps",
    "training.precision",
    "training.activation_checkpointing",
    "training.engine",
)
BOOKKEEPING = (
    "name",
    "compare",
    "tracking",
    "failures",
    "checkpoint.keep",
    "checkpoint.resume",
    "resources.device",
    "resources.memory_budget_gib",
)
"""Settings that change no number of a run, or whose effect is told by the devices."""
KINDS = ("model.family", "model.factory", "data.source", "data.factory")
"""Where one of them differs, the settings beside it are those of something else."""
FROM_DATA = (
    "num_channels",
    "in_channels",
    "num_labels",
    "input_size",
    "n_positions",
    "vocab_size",
)
"""Sizes of a model that follow from its data; see `spec.shapes`."""
MAKES_BATCH = (
    "training.micro_batch_size",
    "training.gradient_accumulation_steps",
    "resources.workers",
)
"""What the global batch follows from where a job does not give it."""

_MOST_NAMED = 3
_LONGEST_SHOWN = 60
_COMMIT_SHOWN = 12


def losses_differ_by_nature(entry: Entry, baseline: Entry) -> str | None:
    """Why the losses of two runs need not be equal; `None` where they do."""
    checks: tuple[Callable[[Entry, Entry], str | None], ...] = (
        _another_training,
        _another_normalisation,
        _other_draws,
        _other_shares,
        _other_idle_weights,
    )
    reasons = (check(entry, baseline) for check in checks)
    return next((reason for reason in reasons if reason is not None), None)


def differences(
    entries: Sequence[Entry], *, varied: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Say what differs between runs besides their strategy, and who has what.

    Args:
        entries: the runs; what one does not know of itself is not counted.
        varied: dotted keys that were varied on purpose; each covers those below it.

    Returns:
        One line a difference: `torch: 2.13.0 (zero0, zero1), 2.11.0 (zero2)`.
    """
    ran = [entry for entry in entries if entry.record.ranks]
    found = {
        **_versions(ran),
        "device": _devices(ran),
        "commit": [(e.name, e.commit[:_COMMIT_SHOWN]) for e in entries if e.commit is not None],
        "user": [(e.name, e.user) for e in entries if e.user is not None],
        **_settings(entries, leave_out=(*STRATEGY, *BOOKKEEPING, *_on_purpose(varied))),
    }
    return tuple(f"{what}: {_who_has_what(told)}" for what, told in found.items() if _differ(told))


def why_not_ranked(
    entries: Sequence[Entry], *, varied: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Say for which reasons runs cannot be ranked by memory and throughput.

    Args:
        entries: the runs; those that never ran stand in no rank, and are not counted.
        varied: dotted keys that were varied on purpose; each covers those below it.

    Returns:
        One reason each: `another data.source: digits (zero0), text (zero1)`. Empty where the runs
        can be ranked.
    """
    ran = [entry for entry in entries if entry.record.ranks]
    devices = [] if "resources.device" in varied else _devices(ran)
    allowed = _on_purpose(varied)
    if varied & set(MAKES_BATCH) and all(one.setting(GLOBAL_BATCH) is None for one in ran):
        allowed = (*allowed, GLOBAL_BATCH)
    found = {"device": devices, **_settings(ran, only=SAME_WORK, leave_out=allowed)}
    return tuple(
        f"another {what}: {_who_has_what(told)}" for what, told in found.items() if _differ(told)
    )


def _on_purpose(varied: frozenset[str]) -> tuple[str, ...]:
    """The keys that were varied, and those that follow from them."""
    sections = {kind.split(".")[0] for kind in KINDS if any(_covers(key, kind) for key in varied)}
    has_other_data = any(_covers("data", key) for key in varied)
    sizes = [f"model.config.{size}" for size in FROM_DATA] if has_other_data else []
    return (*varied, *sections, *sizes)


Told = list[tuple[str, Any]]
"""Names of entries, each with what it has."""


def _another_training(entry: Entry, baseline: Entry) -> str | None:
    schedules = {one.setting("training.schedule.name") for one in (entry, baseline)}
    length = () if schedules <= {"constant", None} else LENGTH
    found = _settings((entry, baseline), only=(*SAME_TRAINING, *length))
    keys = [key for key, told in found.items() if _differ(told)]
    # In the order of the parents, so that another model comes before what follows from it.
    keys.sort(key=lambda key: [_covers(parent, key) for parent in SAME_TRAINING], reverse=True)
    return f"another {_listed(keys)}" if keys else None


def _another_normalisation(entry: Entry, baseline: Entry) -> str | None:
    if not any(one.record.circumstances.batch_norm for one in (entry, baseline)):
        return None
    mine, theirs = entry.micro_batch_size, baseline.micro_batch_size
    if mine != theirs:
        return f"BatchNorm normalises over micro-batches of {mine}, the baseline's over {theirs}"
    if entry.workers != baseline.workers:
        return f"BatchNorm normalises over other micro-batches: {_workers(entry, baseline)}"
    return None


def _other_draws(entry: Entry, baseline: Entry) -> str | None:
    if not any(one.record.circumstances.draws_random for one in (entry, baseline)):
        return None
    start = "dropout draws other numbers: "
    if entry.micro_batch_size != baseline.micro_batch_size:
        mine, theirs = entry.micro_batch_size, baseline.micro_batch_size
        return f"{start}for micro-batches of {mine}, the baseline's of {theirs}"
    if entry.workers != baseline.workers:
        return start + _workers(entry, baseline)
    if entry.accumulation_steps != baseline.accumulation_steps:
        mine, theirs = entry.accumulation_steps, baseline.accumulation_steps
        return f"{start}for {mine} micro-batches a step, the baseline's for {theirs}"
    if entry.device != baseline.device:
        return f"{start}on {entry.device}, the baseline's on {baseline.device}"
    return None


def _other_shares(entry: Entry, baseline: Entry) -> str | None:
    """Whether adafactor scales other parts of the weights; see `OptimizerSection`."""
    stages = [one.setting("zero.stage") or 0 for one in (entry, baseline)]
    if entry.setting("training.optimizer.name") != "adafactor" or not any(stages):
        return None
    start = "adafactor scales the share of each rank as one, and the shares are others: "
    if stages[0] != stages[1]:
        return f"{start}stage {stages[0]}, the baseline's {stages[1]}"
    if entry.workers != baseline.workers:
        return start + _workers(entry, baseline)
    return None


def _other_idle_weights(entry: Entry, baseline: Entry) -> str | None:
    """Whether lion moves weights without gradient another way; see `OptimizerSection`."""
    places = [one.setting("zero.offload_optimizer") or "none" for one in (entry, baseline)]
    is_lion = entry.setting("training.optimizer.name") == "lion"
    if not is_lion or (places[0] == "none") == (places[1] == "none"):
        return None
    return "lion moves a weight without gradient down where it is offloaded, and up on a GPU"


def _workers(entry: Entry, baseline: Entry) -> str:
    return f"on {entry.workers} workers, the baseline's on {baseline.workers}"


def _versions(ran: Sequence[Entry]) -> dict[str, Told]:
    known = [entry for entry in ran if entry.record.circumstances.versions]
    libraries = sorted({name for e in known for name in e.record.circumstances.versions})
    return {
        library: [(e.name, e.record.circumstances.versions.get(library)) for e in known]
        for library in libraries
    }


def _devices(ran: Sequence[Entry]) -> Told:
    kinds = [(entry.name, entry.record.circumstances.devices) for entry in ran]
    return [(name, " and ".join(devices)) for name, devices in kinds if devices]


def _settings(
    entries: Sequence[Entry],
    *,
    only: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
) -> dict[str, Told]:
    """Every setting that is asked for, of all entries: dotted key -> who has what."""
    flat = [{**flat_settings(e.job), GLOBAL_BATCH: e.global_batch_size} for e in entries]
    keys = dict.fromkeys(
        key
        for settings in flat
        for key in settings
        if (only is None or any(_covers(parent, key) for parent in only))
        and not any(_covers(parent, key) for parent in leave_out)
    )
    told = {
        key: [(e.name, _value(settings, key)) for e, settings in zip(entries, flat, strict=True)]
        for key in keys
    }
    others = {key.split(".")[0] for key in KINDS if key in told and _differ(told[key])}
    return {
        key: one for key, one in told.items() if key in KINDS or key.split(".")[0] not in others
    }


def _value(settings: Mapping[str, Any], key: str) -> Any:
    """A value; `None` for a section that is empty here, whose keys another run may have."""
    return None if settings.get(key) == {} else settings.get(key)


def _covers(parent: str, key: str) -> bool:
    return key == parent or key.startswith((f"{parent}.", f"{parent}["))


def _differ(told: Told) -> bool:
    return len({_identity(value) for _, value in told}) > 1


def _identity(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _who_has_what(told: Told) -> str:
    groups: dict[str, list[str]] = {}
    values = {}
    for name, value in told:
        groups.setdefault(_identity(value), []).append(name)
        values[_identity(value)] = value
    return ", ".join(f"{_shown(values[one])} ({_listed(names)})" for one, names in groups.items())


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else _identity(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _listed(names: Iterable[str]) -> str:
    """At most three of them, and how many more there are."""
    all_names = list(names)
    shown = ", ".join(all_names[:_MOST_NAMED])
    n_more = len(all_names) - _MOST_NAMED
    return f"{shown} and {n_more} more" if n_more > 0 else shown
