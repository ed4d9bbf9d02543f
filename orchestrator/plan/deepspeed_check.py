"""What is wrong with a user's `deepspeed:` section, found without DeepSpeed and before it runs.

Pure. Keys that the job file owns, that DeepSpeed does not have, whose value it would refuse, or
that would do nothing under this job's strategy. Every finding's key is dotted, below `deepspeed`.

The tables are in `deepspeed_settings` and `deepspeed_keys`, rules across keys in `deepspeed_rules`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.plan.deepspeed_keys import OWNED, REJECTED
from orchestrator.plan.deepspeed_settings import OPTIMIZER_SETTINGS, SETTINGS, Setting
from orchestrator.plan.dotted import MISSING, get
from orchestrator.spec.base import Section
from orchestrator.spec.finding import Finding, did_you_mean, join_key, show_text, show_value
from orchestrator.spec.job import JobSpec

AUTO = "auto"
OFFLOAD_BLOCKS = {
    "zero_optimization.offload_optimizer": "zero.offload_optimizer",
    "zero_optimization.offload_param": "zero.offload_params",
}
"""Blocks that act only when the job file switches them on."""
OPTIMIZER_TYPES = {
    "adamw": "AdamW",
    "adam": "Adam",
    "sgd": "SGD",
    "rmsprop": "RMSprop",
    "adafactor": "Adafactor",
    "lion": "Lion",
}
"""The job file's optimizers -> DeepSpeed's names of them, most of them torch's."""
_LONGEST_SUGGESTED = 40
_TYPES = {
    bool: ("true or false", "write true or false"),
    int: ("a whole number", "write digits"),
    float: ("a number", "write digits"),
    str: ("text", "put it in quotes"),
    list: ("a list of texts", "write it in brackets, such as [a, b]"),
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def settings_of(
    user: Mapping[str, Any], ours: Mapping[str, Any], *, spec: JobSpec
) -> dict[str, Setting]:
    """Every setting this job may pass on, by dotted key; those of its optimizer included."""
    name: str = spec.training.optimizer.name
    offloaded = spec.zero.offload_optimizer != "none"
    if name in ("adam", "adamw"):
        given = get(user, "optimizer.params.torch_adam")
        torch_adam = given if isinstance(given, bool) else ours["optimizer"]["params"]["torch_adam"]
        name = "torch_adam" if torch_adam else "cpu_adam" if offloaded else "fused_adam"
    elif name == "lion":
        name = "cpu_lion" if offloaded else "fused_lion"
    params = OPTIMIZER_SETTINGS[name]
    return {**SETTINGS, **{f"optimizer.params.{key}": one for key, one in params.items()}}


def entries(user: Mapping[str, Any], parent: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in the section, by dotted key; goes into the blocks DeepSpeed has, and no others.

    An empty block is an entry of its own.
    """
    for part, value in user.items():
        key = join_key(parent, json.dumps(part) if "." in part else part)
        if key in _BLOCKS and isinstance(value, dict) and value:
            yield from entries(value, key)
        else:
            yield key, value


def section_findings(
    user: Mapping[str, Any], ours: Mapping[str, Any], *, spec: JobSpec
) -> Iterator[Finding]:
    """Check the section key by key, in its own order.

    Args:
        user: the section.
        ours: our part of the configuration.
        spec: the job.
    """
    settings = settings_of(user, ours, spec=spec)
    for key, value in entries(user):
        owner = owner_of(key)
        message: str | None
        if key in REJECTED:
            message = REJECTED[key]
        elif key in _BLOCKS and value == {}:
            message = None
        elif owner is not None:
            message = None if value == AUTO else _conflict(key, value, owner, spec)
        elif key in settings:
            message = _wrong_value(value, settings[key]) or _no_effect(
                key, value, settings[key], user, spec
            )
        elif key in _BLOCKS:
            # `null` switches a block off, which says nothing new about one that is off.
            off = value is None and get(ours, key) is MISSING
            message = None if off else "expected a mapping; write one or take it out"
        else:
            message = _unknown(key, settings)
        if message is not None:
            yield Finding(key=key, message=message)


def owner_of(key: str) -> str | None:
    """Name the job file's key that says the same as a key of DeepSpeed's, or as its parent."""
    return next((o for k, o in OWNED.items() if key == k or key.startswith(f"{k}.")), None)


def is_off(block: str, spec: JobSpec) -> bool:
    """Whether a block is one of the offload blocks, and the job file leaves it off."""
    owner = OFFLOAD_BLOCKS.get(block)
    return owner is not None and getattr(spec.zero, owner.removeprefix("zero.")) == "none"


def _parents(key: str) -> Iterator[str]:
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


_BLOCKS = {parent for key in (*SETTINGS, *OWNED) for parent in _parents(key)} | {
    "scheduler",
    "scheduler.params",
}


def _unknown(key: str, settings: Mapping[str, Setting]) -> str:
    parent, _, part = key.rpartition(".")
    neighbours = [
        known.rpartition(".")[2]
        for known in (*settings, *OWNED, *_BLOCKS)
        if known.rpartition(".")[0] == parent
    ]
    hint = did_you_mean(part, sorted(neighbours))
    return f"DeepSpeed has no such key; {hint}{'else ' if hint else ''}take it out"


def _conflict(key: str, value: Any, owner: str, spec: JobSpec) -> str:
    """Say that the job file decides this, what it says now, and how to say the other thing."""
    current: Any = spec
    given = True
    for part in owner.split("."):
        given = given and part in current.model_fields_set
        current = getattr(current, part)
    if isinstance(current, Section):
        state = "" if given else " (its default)"
    elif current is None:
        state = " (left out)"
    else:
        state = f" ({_in_yaml(current)}{'' if given else ', the default'})"
    wanted = _in_our_words(key, value)
    if wanted is None:
        way_out = f"set {owner} and "
    else:
        way_out = "" if wanted == _in_yaml(current) else f"set {owner}: {wanted} and "
    return f'is set by {owner}{state}; {way_out}take it out here (or write "auto")'


def _in_our_words(key: str, value: Any) -> str | None:
    """The job file's value that means the same; `None` if that takes a person."""
    if key.endswith(".enabled"):
        return key.partition(".")[0] if value is True else None
    if key == "optimizer.params.adam_w_mode":
        return {True: "adamw", False: "adam"}.get(value) if isinstance(value, bool) else None
    if key == "optimizer.type":
        named = {theirs: ours for ours, theirs in OPTIMIZER_TYPES.items()}
        # DeepSpeed's "Adam" is AdamW or Adam, by a key elsewhere.
        return None if value == "Adam" else named.get(str(value))
    if owner_of(key) == "training.schedule" or isinstance(value, dict):
        return None
    text = _in_yaml(value)
    return text if len(text) <= _LONGEST_SUGGESTED and text.isprintable() else None


def _in_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _wrong_value(value: Any, setting: Setting) -> str | None:
    """Say why DeepSpeed would refuse a value, or take it for another."""
    if value == AUTO or (value is None and setting.default is None):
        return None
    if isinstance(value, dict):
        return "expected one value, not a mapping; take it out"
    if not _has_type(value, setting.type):
        expected, advice = _TYPES[setting.type]
        return f"expected {expected}, got {show_value(value)}; {advice}"
    if setting.choices and value not in setting.choices:
        hint = did_you_mean(value, setting.choices)
        return f"got {show_text(value)}; {hint}choose one of {', '.join(setting.choices)}"
    for name, words in _BOUNDS.items():
        bound = getattr(setting, name)
        if bound is not None and not _COMPARED[name](value, bound):
            return f"got {show_value(value)}; must be {words} {bound:g}"
    return None


_COMPARED = {
    "ge": lambda value, bound: value >= bound,
    "gt": lambda value, bound: value > bound,
    "le": lambda value, bound: value <= bound,
    "lt": lambda value, bound: value < bound,
}


def _has_type(value: Any, wanted: type) -> bool:
    if wanted is list:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if wanted is int and isinstance(value, float):
        # JSON files write 5e8 for whole numbers.
        return value.is_integer()
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))


def _no_effect(
    key: str, value: Any, setting: Setting, user: Mapping[str, Any], spec: JobSpec
) -> str | None:
    """Say why DeepSpeed would not act on a value that is not what it does anyway."""
    if value in (AUTO, setting.default) or (setting.default is None and value is False):
        return None
    if not setting.stages:
        return "it would do nothing here; take it out"
    if reason := _switched_off(key, user, spec):
        return reason
    if spec.zero.stage not in setting.stages:
        return _idle("zero.stage", spec.zero.stage, " or ".join(map(str, setting.stages)))
    return None


def _switched_off(key: str, user: Mapping[str, Any], spec: JobSpec) -> str | None:
    """Say by what the block around a key is switched off."""
    block = key.rpartition(".")[0]
    if block in ("fp16", "bf16") and block != spec.training.precision:
        return _idle("training.precision", spec.training.precision, block)
    if is_off(block, spec):
        return _idle(OFFLOAD_BLOCKS[block], "none", "cpu or nvme")
    if block == "aio" and "nvme" not in (spec.zero.offload_optimizer, spec.zero.offload_params):
        return "has no effect while nothing is offloaded to nvme; take it out"
    switch = f"{block}.enabled"
    starts_off = switch in SETTINGS and not SETTINGS[switch].default
    if starts_off and key != switch and get(user, switch) in (MISSING, AUTO):
        return _idle(f"deepspeed.{switch}", "false", "true")
    return None


def _idle(owner: str, current: object, needed: str) -> str:
    return f"has no effect while {owner} is {current}; set {owner}: {needed}, or take it out"
