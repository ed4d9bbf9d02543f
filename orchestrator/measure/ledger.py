"""The ledger: what fills a rank's memory at one moment, by category. Pure arithmetic.

A ledger maps every category to bytes; its sum is the memory that was measured at that moment.
"""

from collections.abc import Iterable, Mapping

Ledger = dict[str, int]

CATEGORY_MEANINGS: Mapping[str, str] = {
    "params": "weights the model computes with, and its own buffers; at stage 3 the rank's shard",
    "gradients": "gradients, whole or the rank's share, and their fp32 copy for the optimizer",
    "optimizer": "fp32 master weights and the optimizer's state",
    "activations": "the batch and what forward made of it, recomputed or not",
    "buffers": "what collectives and offload pass through: buckets, flat copies",
    "gathered": "weights of other ranks, all-gathered at stage 3",
    "temporaries": "made and given back inside backward, the update or the construction",
    "unattributed": "measured, and of none of these",
}
"""Category -> what it holds, in the order of tables and plots."""

CATEGORIES = tuple(CATEGORY_MEANINGS)
UNATTRIBUTED = "unattributed"


def empty_ledger() -> Ledger:
    """A ledger of nothing."""
    return dict.fromkeys(CATEGORIES, 0)


def ledger_of(parts: Iterable[tuple[str, int]]) -> Ledger:
    """Add up bytes by category.

    Args:
        parts: category and bytes of each piece of memory.

    Raises:
        ValueError: a category is unknown.
    """
    ledger = empty_ledger()
    for category, n_bytes in parts:
        if category not in ledger:
            raise ValueError(f"unknown category {category!r}; there are {', '.join(CATEGORIES)}")
        ledger[category] += n_bytes
    return ledger


def completed(ledger: Mapping[str, int], *, measured_bytes: int) -> Ledger:
    """Put what was measured beyond the ledger's sum into its unattributed line.

    Args:
        ledger: what could be told apart.
        measured_bytes: what an allocator counted at the same moment. Less than the sum cannot be:
            the ledger is then left as it is, and does not add up to it.
    """
    beyond = max(0, measured_bytes - sum(ledger.values()))
    return {**ledger, UNATTRIBUTED: ledger.get(UNATTRIBUTED, 0) + beyond}


def unattributed_ratio(ledger: Mapping[str, int]) -> float | None:
    """Share of the memory that has no category; `None` of an empty ledger."""
    total = sum(ledger.values())
    return ledger.get(UNATTRIBUTED, 0) / total if total else None
