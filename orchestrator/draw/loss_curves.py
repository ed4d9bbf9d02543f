"""The loss curves of a comparison: how each looks, and what a legend calls it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from orchestrator.compare.ranking import Row, Sameness
from orchestrator.draw.curve import Curve, curve_of, difference_curve
from orchestrator.draw.style import CATEGORY_COLOURS, INK

FEW_CURVES = 8
"""Up to so many strategies each has a look of its own; of more, those that are different."""
LOOKS = tuple(
    (CATEGORY_COLOURS[name], dashes)
    for dashes, name in product(
        ("-", (0, (4, 1.5))),
        ("activations", "params", "gathered", "optimizer", "temporaries", "gradients"),
    )
)
"""Colour and dashes of the curves that are told apart, the most different first."""
PLAIN = "#9A9A9A"


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """One strategy's losses and how they look."""

    row: Row
    losses: Curve
    difference: Curve | None
    """To the baseline's, without steps in which they are equal; `None` where there is none."""
    colour: str
    dashes: object
    width: float
    label: str | None
    """In the legend; `None` for those that are not told apart."""


def loss_curves(
    told: Sequence[Row], *, base: Row | None, names: Mapping[str, str]
) -> list[LossCurve]:
    """Choose a look for each.

    Args:
        told: strategies with losses.
        base: the baseline; `None` where it is not among them.
        names: name -> what a plot calls the strategy.

    Returns:
        Curves in the order in which they are drawn: the baseline's first, below all others.
    """
    apart = [row for row in told if _is_told_apart(row, base=base, is_few=len(told) <= FEW_CURVES)]
    apart.sort(key=lambda row: -(row.loss.max_difference or 0.0))
    looks = {row.name: look for row, look in zip(apart, LOOKS, strict=False)}
    ordered = sorted(told, key=lambda row: (row is not base, row.name in looks))
    drawn = []
    for row in ordered:
        losses = row.entry.record.losses
        colour, dashes = looks.get(row.name, (PLAIN, "-"))
        if row is base or row.loss.sameness is Sameness.BITWISE:
            colour = INK
        difference = None
        if base is not None and row is not base:
            difference = difference_curve(losses, base.entry.record.losses)
        is_named = row is base or row.name in looks
        drawn.append(
            LossCurve(
                row=row,
                losses=curve_of(losses),
                difference=difference,
                colour=colour,
                dashes=dashes,
                width=3.0 if row is base else 1.3 if row.name in looks else 0.8,
                label=_label(row, names[row.name], base=base) if is_named else None,
            )
        )
    return drawn


def _is_told_apart(row: Row, *, base: Row | None, is_few: bool) -> bool:
    if row is base or (base is not None and row.loss.sameness is Sameness.BITWISE):
        return False
    return is_few or row.loss.sameness is Sameness.DIFFERENT


def _label(row: Row, shown: str, *, base: Row | None) -> str:
    if row is base:
        return f"{shown}, baseline"
    if not row.entry.is_ok:
        return f"{shown}, {row.entry.record.outcome}"
    if row.loss.sameness is Sameness.NOT_COMPARABLE:
        return f"{shown}\n(need not be equal)"
    return f"{shown}, different" if row.loss.sameness is Sameness.DIFFERENT else shown
