"""`--set key=value`: one key of a job, given on the command line instead of in the file.

The value is YAML, read with the rules of the file. Pure.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.spec.finding import Finding, dotted_key, show_value
from orchestrator.spec.keys import split_key, with_value
from orchestrator.spec.origin import Place
from orchestrator.spec.yaml_tree import DEEPEST, Tree, read_yaml

_FORM = "write --set key=value, such as --set training.steps=10"


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> Tree:
    """Set keys of a job's values, in the order given; faulty overrides change nothing.

    Args:
        tree: a mapping, with the places of its keys.
        overrides: each `key=value`; the value null unsets a key that may be null.
    """
    for number, override in enumerate(overrides, start=1):
        tree = _apply(tree, number, override)
    return tree


def _apply(tree: Tree, number: int, override: str) -> Tree:
    name, equals, text = override.partition("=")
    path = split_key(name.strip())
    key = dotted_key(path)
    place = Place(number, 1, 1)
    problem = _malformed(path, equals, text)
    if problem:
        return _refused(tree, "", ((place, Finding(key="", message=problem)),))
    given = read_yaml(text, override=number)
    if given.faults:
        found = ((at, Finding(key=key, message=fault.message)) for at, fault in given.faults)
        return _refused(tree, key, tuple(found))
    try:
        values = with_value(tree.value, path, given.value)
    except ValueError as err:
        parent = split_key(str(err))
        shown = dotted_key(parent)
        message = f"{shown} is {_at(tree.value, parent)}, not a mapping; set {shown} itself"
        return _refused(tree, key, ((place, Finding(key=key, message=message)),))
    return replace(tree, value=values, places=_moved(tree, path, given, place))


def _malformed(path: Sequence[str], equals: str, text: str) -> str | None:
    if not equals:
        return f"there is no = in it; {_FORM}"
    if not all(part and part == part.strip() for part in path):
        return f"the key is empty, or a part of it; {_FORM}"
    if len(path) > DEEPEST:
        return f"the key has more than {DEEPEST} parts; {_FORM}"
    if not text.strip():
        return "there is no value after the =; write null to unset the key"
    return None


def _at(values: Any, path: Sequence[str]) -> str:
    for part in path:
        values = values[part]
    return show_value(values)


def _moved(tree: Tree, path: Sequence[str], given: Tree, place: Place) -> dict[str, Place]:
    """Say that the key, all below it, and parents that were not there come from the override."""
    key = dotted_key(path)
    below = (f"{key}.", f"{key}[")
    places = {
        name: at for name, at in tree.places.items() if name != key and not name.startswith(below)
    }
    for n_parts in range(1, len(path)):
        places.setdefault(dotted_key(path[:n_parts]), place)
    for name in given.places:
        places[_joined(key, name)] = place
    return places


def _joined(key: str, name: str) -> str:
    return f"{key}{name}" if not name or name.startswith("[") else f"{key}.{name}"


def _refused(tree: Tree, key: str, faults: tuple[tuple[Place, Finding], ...]) -> Tree:
    return replace(tree, faults=(*tree.faults, *faults), unread=tree.unread | {key})
