"""Nested mappings, read and written by dotted key such as `zero_optimization.stage`. Pure."""

from typing import Any

MISSING = object()


def get(tree: Any, dotted: str) -> Any:
    """The value at a dotted key, or `MISSING`."""
    for part in dotted.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return MISSING
        tree = tree[part]
    return tree


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the value at a dotted key, making mappings on the way."""
    *parents, last = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value
