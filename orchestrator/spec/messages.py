"""What pydantic found wrong with a job, in our words: what was got, and what to write.

Pure; the types of errors are those of pydantic-core 2.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.spec.finding import (
    Finding,
    closest,
    did_you_mean,
    dotted_key,
    join_key,
    show_text,
    show_value,
)
from orchestrator.spec.keys import (
    DATA_KINDS,
    MODEL_KINDS,
    Path,
    explain_unknown,
    meant_key,
    section_at,
)

_MOST_SUGGESTED = 100
"""Looking for what was meant takes a while; a file with more unknown keys is no job."""
_EXAMPLES = {
    "name": "name: my-run",
    "model": "model: {family: resnet}",
    "data": "data: {source: digits}",
    "training": "training: {steps: 100, global_batch_size: 64}",
}
_TAGS = {"model": ("family", MODEL_KINDS), "data": ("source", DATA_KINDS)}
_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_EXPECTED = {
    "memory_budget_gib": "a number or a size such as 16GiB",
    "max_bytes": "a whole number of bytes or a size such as 4MiB",
}
"""What keys of several types take."""


def findings_of(error: ValidationError, values: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Translate everything pydantic found.

    Args:
        error: what it raised.
        values: what it was given.

    Returns:
        Findings, without missing keys that a misspelt neighbour explains.
    """
    details = error.errors(include_url=False)
    unknown = [_path(one) for one in details if one["type"] == "extra_forbidden"]
    beyond = set(unknown[_MOST_SUGGESTED:])
    explained = {meant_key(path, values) for path in unknown[:_MOST_SUGGESTED]}
    findings: dict[Finding, None] = {}
    for one in details:
        path = _path(one)
        if path in beyond:
            findings[Finding(key=dotted_key(path), message="unknown key; remove it")] = None
            continue
        for finding in _translate(one, values):
            if one["type"] != "missing" or finding.key not in explained:
                findings[finding] = None
    return tuple(findings)


def _path(error: ErrorDetails) -> Path:
    """Where an error is, without the names pydantic gives to members of a union."""
    path = error["loc"]
    if path[0] in _TAGS:
        return path[:1] + path[2:]
    return path[:1] if path[0] == "deepspeed" else path


def _translate(error: ErrorDetails, values: Mapping[str, Any]) -> Iterator[Finding]:
    path = _path(error)
    if error["type"] == "union_tag_not_found":
        yield from _untagged(str(path[0]), error["input"])
    elif error["type"] == "missing" and isinstance(path[-1], int):
        got = len(error["input"])
        message = f"expected more than {got} {_plural(got, 'value')}; {_meaning(path[:-1], values)}"
        yield Finding(key=dotted_key(path[:-1]), message=message)
    else:
        yield Finding(key=dotted_key(path), message=_message(error, path, values))


def _untagged(name: str, given: Any) -> Iterator[Finding]:
    """Say what is wrong with a model or data section of which we cannot tell the kind."""
    tag, kinds = _TAGS[name]
    known = ", ".join(kind for kind in kinds if kind != "factory")
    example = f"{name}: {{{tag}: {next(iter(kinds))}}}"
    if not isinstance(given, dict):
        message = f"expected a mapping, got {show_value(given)}; write {example}"
        yield Finding(key=name, message=message)
        return
    keys = list(dict.fromkeys(key for cls in kinds.values() for key in cls.model_fields))
    misspelt = []
    for key in given:
        if key not in keys:
            meant = closest(key, keys)
            misspelt.append(meant)
            hint = f"did you mean {meant!r}?" if meant else f"known here: {', '.join(keys)}"
            yield Finding(key=join_key(name, key), message=f"unknown key; {hint}")
    if tag in given and "factory" in given:
        message = f"{tag} is given too; keep one of the two"
        yield Finding(key=f"{name}.factory", message=message)
    if tag in given:
        shown = show_text(given[tag]) if isinstance(given[tag], str) else show_value(given[tag])
        hint = did_you_mean(given[tag], list(kinds))
        message = f"unknown {tag} {shown}; {hint}choose one of {known}, or give a factory"
        yield Finding(key=f"{name}.{tag}", message=message)
    elif tag not in misspelt and "factory" not in misspelt:
        message = f"missing {tag}; write {tag}: one of {known}, or factory: module:callable"
        yield Finding(key=name, message=message)


def _message(error: ErrorDetails, path: Path, values: Mapping[str, Any]) -> str:
    kind, got = error["type"], error["input"]
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"got {show_value(got)}; must be {words} {context[name]}"
    match kind:
        case "extra_forbidden":
            return _unknown(path, values)
        case "missing":
            return f"missing; write {_EXAMPLES[str(path[-1])]}"
        case "literal_error":
            return _not_a_choice(got, context["expected"])
        case _ if kind in _TYPES:
            return _wrong_type(kind, got, path)
        case _:
            return _wrong_value(error, path, values)


def _wrong_value(error: ErrorDetails, path: Path, values: Mapping[str, Any]) -> str:
    """Say why a value of the right type does not do."""
    kind, got = error["type"], error["input"]
    context: Mapping[str, Any] = error.get("ctx", {})
    match kind:
        case "value_error":
            reason = str(context["error"])
            named = isinstance(got, str) and reason.startswith(repr(got))
            return (
                show_text(got) + reason.removeprefix(repr(got))
                if named
                else f"got {show_value(got)}; {reason}"
            )
        case "string_pattern_mismatch" | "string_too_short" | "string_too_long":
            return f"got {show_text(got)}; {_meaning(path, values)}"
        case "too_short":
            return "an empty list; give at least one value"
        case "too_long":
            most, n = context["max_length"], context["actual_length"]
            return f"expected {most} values, got {n}; {_meaning(path, values)}"
        case _:
            return f"got {show_value(got)}; {error['msg'].lower()}"


def _unknown(path: Path, values: Mapping[str, Any]) -> str:
    if len(path) == 2 and path[0] in _TAGS and path[1] == "factory":
        return f"{_TAGS[path[0]][0]} is given too; keep one of the two"
    return explain_unknown(path, values)


def _meaning(path: Path, values: Mapping[str, Any]) -> str:
    """What a key means, from its documentation."""
    section = section_at(path[:-1], values)
    field = section.model_fields.get(str(path[-1])) if section else None
    words = (field.description or "").split("\n")[0].rstrip(".") if field else ""
    return words if words[:2].isupper() else words[:1].lower() + words[1:]


def _not_a_choice(got: Any, expected: str) -> str:
    choices = [choice.strip("'") for choice in re.split(r", | or ", expected)]
    textual = "'" in expected
    shown = show_text(got) if textual and isinstance(got, str) else show_value(got)
    hint = did_you_mean(got, choices) if textual else ""
    return f"got {shown}; {hint}choose one of {', '.join(choices)}"


def _wrong_type(kind: str, got: Any, path: Path) -> str:
    if path == ("deepspeed",):
        words = "a mapping or the path of a JSON file"
        return f"expected {words}, got {show_value(got)}; leave it out for none"
    expected = _EXPECTED.get(str(path[-1]), _TYPES[kind])
    return f"expected {expected}, got {show_value(got)}; {_type_hint(kind, got)}"


def _type_hint(kind: str, got: Any) -> str:
    match kind:
        case "int_type" | "float_type":
            return _number_hint(got)
        case "bool_type":
            return "write true or false"
        case "string_type":
            return "put it in quotes" if isinstance(got, bool | int | float) else "write text"
        case "list_type" | "tuple_type":
            return "write it in brackets, such as [1, 2]"
        case _:
            return (
                "leave the key out for its defaults" if got is None else "write key: value below it"
            )


def _number_hint(got: Any) -> str:
    if isinstance(got, float) and got.is_integer():
        return f"write {int(got)}"
    if isinstance(got, str) and re.fullmatch(r"[0-9]+(?:[_,' ][0-9]+)*", got):
        digits = re.sub(r"[^0-9]", "", got)
        return f"write {digits}" if len(digits) <= 15 else "write digits only"
    return "write digits, without quotes or units" if isinstance(got, str) else "write digits"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
