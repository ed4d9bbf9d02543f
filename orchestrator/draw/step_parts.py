"""The parts of a step as a stacked bar: what follows what, up to the median step."""

from collections.abc import Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from orchestrator.draw.style import PART_COLOURS
from orchestrator.measure.run_record import StepTimes

PARTS = ("data", "forward", "backward", "optimizer", "logging")
"""What a step consists of one after the other."""
LEGEND_WORDS = {
    "rest": "rest of the step",
    "checkpoint": "checkpoint: longer by this when saving",
}


def stacked(times: StepTimes) -> list[tuple[str, float]]:
    """Part -> seconds, in order, with the rest of the median step."""
    parts = [(part, seconds) for part in PARTS if (seconds := getattr(times, part))]
    rest_s = (times.median or 0.0) - sum(seconds for _, seconds in parts)
    # Medians of parts need not add up to the median; below a microsecond it is rounding.
    return [*parts, ("rest", rest_s)] if rest_s >= 1e-6 else parts


def draw_parts(
    axes: Axes, parts: Sequence[tuple[str, float]], *, place: float, height: float
) -> float:
    """Draw one bar.

    Args:
        axes: in ms.
        parts: part and seconds, in order.
        place: the bar's middle.
        height: the bar's.

    Returns:
        Where it ends, in seconds.
    """
    end_s = 0.0
    for part, seconds in parts:
        axes.barh(
            place,
            seconds * 1e3,
            height,
            left=end_s * 1e3,
            color=PART_COLOURS[part],
            edgecolor="white",
            linewidth=0.6,
        )
        end_s += seconds
    return end_s


def part_patches(used: Collection[str]) -> list[Patch]:
    """What a legend says of the parts that were drawn."""
    return [
        Patch(facecolor=colour, edgecolor="white", label=LEGEND_WORDS.get(part, part))
        for part, colour in PART_COLOURS.items()
        if part in used
    ]
