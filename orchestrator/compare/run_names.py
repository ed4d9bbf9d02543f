"""Names for runs that were not launched together: each its own, and no longer than it takes. Pure.

A name says how a run shards, and beside that only what tells it from others that shard alike:
`zero2`, `zero2-lr0.01`; `zero2-alice`, `zero2-bob`; `zero2-10:47`, `zero2-11:20`.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.compare.comparable import BOOKKEEPING, KINDS
from orchestrator.compare.entry import Entry, flat_settings
from orchestrator.compare.strategies import LONGEST_NAME, NAMED_BY_STRATEGY

_TOLD_OTHERWISE = (
    *KINDS,
    "training.micro_batch_size",
    "training.gradient_accumulation_steps",
    "training.global_batch_size",
    "resources.workers",
)
"""What is told by `_FACTS`, as it came out where a job leaves it to be worked out."""
_FACTS: tuple[Callable[[Entry], str], ...] = (
    lambda entry: _kind(entry, "model.family", "model.factory"),
    lambda entry: _kind(entry, "data.source", "data.factory"),
    lambda entry: f"micro{entry.micro_batch_size}",
    lambda entry: f"workers{entry.workers}",
    lambda entry: f"batch{entry.global_batch_size}",
)
_SHORT_ID = 8
_LONGEST_VALUE = 24
_BAD = re.compile(r"[^A-Za-z0-9.:-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToName:
    """A run, with what may tell it from others."""

    run_id: str
    name: str
    """What its store calls it."""
    entry: Entry
    started_unix_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    """Something in which runs may differ."""

    values: Sequence[str]
    """What each run has, in words for its name."""
    unsaid: str | None = None
    """What goes without saying, because most have it."""
    parts_all: bool = False
    """It is used only where it tells all of them apart."""


def run_names(runs: Sequence[RunToName]) -> list[str]:
    """Name runs so that no two have the same name.

    A run is called as its store calls it, but one that bears its job's name by how it shards, since
    a job's name says nothing of `--set`. Where several are called alike, the first of these is
    added in which they differ: how they shard, settings of the job (not those that most runs
    have), device, user, day and time, id.

    Args:
        runs: in any order; the order decides nothing but that of the result.
    """
    marks = _marks(runs)
    own = [_own_name(run) for run in runs]
    named = list(own)
    for name, count in Counter(own).items():
        if count > 1:
            alike = [n for n, one in enumerate(own) if one == name]
            for n, suffix in _told_apart(alike, marks).items():
                named[n] = "-".join([name, *suffix])
    return _made_unique(named, [run.run_id for run in runs])


def _own_name(run: RunToName) -> str:
    name = " ".join(run.name.split())[:LONGEST_NAME]
    return run.entry.strategy if name in ("", run.entry.setting("name")) else name


def _told_apart(alike: Sequence[int], marks: Sequence[_Mark]) -> dict[int, tuple[str, ...]]:
    """Run -> what is added to its name: of each mark that parts them, what it has."""
    if len(alike) == 1:
        return {alike[0]: ()}
    for n, mark in enumerate(marks):
        parts: dict[str, list[int]] = {}
        for run in alike:
            parts.setdefault(mark.values[run], []).append(run)
        if len(parts) > 1 and (len(parts) == len(alike) or not mark.parts_all):
            return {
                run: (() if value == mark.unsaid else (value,)) + suffix
                for value, part in parts.items()
                for run, suffix in _told_apart(part, marks[n + 1 :]).items()
            }
    return dict.fromkeys(alike, ())


def _made_unique(names: Sequence[str], run_ids: Sequence[str]) -> list[str]:
    """Add ids to names that came out the same all the same, as where one was given by hand."""
    for length in (_SHORT_ID, None):
        count = Counter(names)
        names = [
            f"{name}-{run_id[:length]}" if count[name] > 1 else name
            for name, run_id in zip(names, run_ids, strict=True)
        ]
    return list(names)


def _marks(runs: Sequence[RunToName]) -> list[_Mark]:
    """In what runs may differ, what matters most first."""
    entries = [run.entry for run in runs]
    starts = [time.localtime(run.started_unix_s) for run in runs]
    devices = [" ".join(entry.record.circumstances.devices) for entry in entries]
    return [
        _Mark(values=[entry.strategy for entry in entries]),
        *_settings(entries),
        _Mark(values=[entry.device for entry in entries]),
        _Mark(values=[_plain(device) or "unknown" for device in devices]),
        _Mark(values=[_plain(entry.user or "") or "unknown" for entry in entries]),
        _Mark(values=[time.strftime("%Y-%m-%d", start) for start in starts]),
        _Mark(values=[time.strftime("%H:%M", start) for start in starts], parts_all=True),
        _Mark(values=[time.strftime("%H:%M:%S", start) for start in starts]),
        _Mark(values=[run.run_id[:_SHORT_ID] for run in runs]),
    ]


def _settings(entries: Sequence[Entry]) -> list[_Mark]:
    """Settings that are not the same in all runs; what the strategy's name tells is left out."""
    flat = [flat_settings(entry.job) for entry in entries]
    skipped = (*BOOKKEEPING, *NAMED_BY_STRATEGY, *_TOLD_OTHERWISE)
    keys = [
        key
        for key in dict.fromkeys(key for settings in flat for key in settings)
        if not any(key == parent or key.startswith(f"{parent}.") for parent in skipped)
    ]
    told = [
        *([fact(entry) for entry in entries] for fact in _FACTS),
        *([_setting(key, settings.get(key)) for settings in flat] for key in keys),
    ]
    return [
        _Mark(values=values, unsaid=_most_common(values)) for values in told if len(set(values)) > 1
    ]


def _most_common(values: Sequence[str]) -> str | None:
    """What more runs have than anything else."""
    (value, n), *rest = Counter(values).most_common(2)
    return value if not rest or n > rest[0][1] else None


def _kind(entry: Entry, *keys: str) -> str:
    """What its model or its data is."""
    return next((_setting(key, value) for key in keys if (value := entry.setting(key))), "none")


def _setting(key: str, value: Any) -> str:
    """A setting in a name: `lr0.01`, `sgd`, `workers4`."""
    if isinstance(value, str):
        return _plain(value.rpartition("/")[2]) or "empty"
    if value is None or value == {} or isinstance(value, bool):
        words = "on" if value is True else "off" if value is False else "none"
    elif isinstance(value, float):
        words = f"{value:g}"
    elif isinstance(value, list | tuple):
        words = "x".join(map(str, value))
    else:
        words = json.dumps(value, default=str)
    return _plain(key.rpartition(".")[2]) + _plain(words)


def _plain(text: str) -> str:
    return _BAD.sub("_", text).strip("_.:-")[:_LONGEST_VALUE]
