"""Labels written beside points, with a line to those that are further away."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.draw.label_places import Label, label_places
from orchestrator.draw.style import INK, QUIET, width_in

LEADER_GAP_PT = 4.0
"""From so far on a label has a line to its point."""
SIDE_PX = 2.0
"""What is left free at each side of a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointLabel:
    """A label and its point."""

    text: str
    x: float
    """Of the point, as the axes have it."""
    y: float
    mark_pt: float
    """Width of the point's mark."""
    size_pt: float
    """Type size."""
    bold: bool


def write_point_labels(
    figure: Figure,
    axes: Axes,
    labels: Sequence[PointLabel],
    *,
    avoid: Sequence[tuple[float, float]],
) -> None:
    """Write labels so that none lies on another or on a point.

    Places are sought in what the axes come to once all else has its room; call it last.

    Args:
        figure: its layout stays as it is from here on.
        axes: with limits that were set.
        labels: the most important first.
        avoid: points on lines that labels had better not lie on, as the axes have them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    box = axes.get_window_extent()
    boxes = [_in_pixels(label, figure=figure, axes=axes) for label in labels]
    places = label_places(
        boxes,
        bounds=(box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1),
        avoid=axes.transData.transform(avoid).tolist() if avoid else (),
    )
    to_data = axes.transData.inverted()
    for label, pixels, place in zip(labels, boxes, places, strict=True):
        if place.gap > pixels.radius + LEADER_GAP_PT * figure.dpi / 72:
            ends = to_data.transform([(pixels.x, pixels.y), (place.touches_x, place.touches_y)])
            axes.add_line(Line2D(ends[:, 0], ends[:, 1], color=QUIET, linewidth=0.5, zorder=1.8))
        x, y = to_data.transform((place.x + SIDE_PX, place.y + 0.25 * pixels.height))
        axes.text(
            x,
            y,
            label.text,
            verticalalignment="baseline",
            fontsize=label.size_pt,
            fontweight="bold" if label.bold else "normal",
            color=INK,
            zorder=5,
        )


def _in_pixels(label: PointLabel, *, figure: Figure, axes: Axes) -> Label:
    x, y = axes.transData.transform((label.x, label.y))
    per_pt = figure.dpi / 72
    return Label(
        x=float(x),
        y=float(y),
        radius=(label.mark_pt / 2 + 1) * per_pt,
        width=width_in(label.text, size_pt=label.size_pt, bold=label.bold) * figure.dpi
        + 2 * SIDE_PX,
        height=1.35 * label.size_pt * per_pt,
    )
