"""What all plots share: a colour for every name, type sizes, and a figure with its two titles.

Figures are made without pyplot, so that nothing global keeps them alive and no display is needed.
"""

import textwrap
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import text_to_path

from orchestrator.measure.ledger import UNATTRIBUTED

CATEGORY_COLOURS: Mapping[str, str] = {
    "params": "#0B5394",
    "gradients": "#56B4E9",
    "optimizer": "#009E73",
    "activations": "#E69F00",
    "buffers": "#F0E442",
    "gathered": "#CC79A7",
    "temporaries": "#B03A00",
    UNATTRIBUTED: "#C8C8C8",
}
"""Category of a ledger -> its colour in every plot: cold is model state, warm comes and goes.

Told apart also by those who lack a kind of cone.

Source:
    Okabe and Ito, Color Universal Design (2008), figure 16; blue and vermilion made darker.
"""

PART_COLOURS: Mapping[str, str] = {
    "data": "#DDCC77",
    "forward": "#88CCEE",
    "backward": "#332288",
    "optimizer": "#009E73",
    "logging": "#7A5C3E",
    "rest": "#D0D0D0",
    "checkpoint": "#882255",
}
"""Part of a step -> its colour; the optimizer's is the one that its state has.

Source:
    Tol, Colour Schemes (SRON/EPS/TN/09-002, 2021), the muted scheme; brown is our own.
"""

PHASE_TINTS: Mapping[str, str] = {
    "init": "#ECECEC",
    "forward": "#DDEFF9",
    "backward": "#E0DCF0",
    "step": "#D8F0E6",
}
"""Phase -> what lies behind it: the colour of its part of a step, pale."""

BLANK = "#D9D9D9"
"""Where there is no value."""
INK = "#222222"
QUIET = "#595959"
GRID = "#E2E2E2"
HATCH = "//////"
NUMBERS = "{x:,.10g}"
"""How scales write numbers: with thousands apart and as few decimals as they need."""

PNG_DPI = 120
TINY_PT = 7.0
SMALL_PT = 8.0
TEXT_PT = 9.0
TITLE_PT = 12.0
LETTERS_PER_IN = 13.5
"""Of subtitles, on average."""

SETTINGS: dict[str, Any] = {
    **{
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if key not in ("backend", "backend_fallback")
    },
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT_PT,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "orchestrator",
    # Names may have dollars in them.
    "text.parse_math": False,
}
"""Settings under which everything is drawn, whatever the user's matplotlibrc says."""


def new_figure(
    *, title: str, subtitle: str, across_in: float, height_in: float
) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes and a title over a subtitle.

    Args:
        title: what is shown, bold; shortened where the figure is too narrow.
        subtitle: how to read it; broken into lines.
        across_in: width, inches.
        height_in: height, inches, titles included.
    """
    figure, (axes,) = new_panels(
        title=title, subtitle=subtitle, across_in=across_in, height_in=height_in, shares=(1,)
    )
    return figure, axes


def new_panels(
    *, title: str, subtitle: str, across_in: float, height_in: float, shares: Sequence[float]
) -> tuple[Figure, list[Axes]]:
    """Make a figure with pairs of axes above each other that share their x axis.

    Args:
        title: what is shown, bold; shortened where the figure is too narrow.
        subtitle: how to read it, above the first panel; broken into lines.
        across_in: width, inches.
        height_in: height, inches, titles included.
        shares: a panel's height to that of the others, from above.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
    figure = Figure(figsize=(across_in, height_in), dpi=PNG_DPI, layout=layout)
    figure.suptitle(
        shortened(title, room_in=across_in - 0.2),
        x=0.1 / across_in,
        horizontalalignment="left",
        fontsize=TITLE_PT,
        fontweight="bold",
        color=INK,
        parse_math=False,
    )
    grid = figure.add_gridspec(len(shares), 1, height_ratios=shares)
    panels: list[Axes] = []
    for place in range(len(shares)):
        axes = figure.add_subplot(grid[place], sharex=panels[0] if panels else None)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(QUIET)
        axes.tick_params(colors=QUIET, labelcolor=INK, labelsize=SMALL_PT)
        axes.set_axisbelow(True)
        panels.append(axes)
    write_over(panels[0], subtitle, across_in=across_in)
    return figure, panels


def write_over(axes: Axes, words: str, *, across_in: float) -> None:
    """Write how to read a panel above it, broken into lines."""
    axes.set_title(
        textwrap.fill(words, int((across_in - 1.2) * LETTERS_PER_IN), break_on_hyphens=False),
        loc="left",
        fontsize=TEXT_PT,
        color=QUIET,
    )


def category_fill(category: str, *, white: float = 0.0) -> dict[str, Any]:
    """How a patch of a category looks, as keywords of a patch.

    Args:
        category: one of the ledger's.
        white: 0..1, how much white its colour is mixed with.
    """
    colour = to_rgb(CATEGORY_COLOURS[category])
    return {
        "facecolor": to_hex([part + (1 - part) * white for part in colour]),
        "edgecolor": "white",
        "linewidth": 0.6,
        "hatch": HATCH if category == UNATTRIBUTED else None,
    }


def draw_legend_beside(axes: Axes, handles: Sequence[Artist]) -> None:
    """Put a legend to the right of the axes, level with their top."""
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
        frameon=False,
        fontsize=TEXT_PT,
    )


def width_in(text: str, *, size_pt: float, bold: bool = False) -> float:
    """How wide a line is, in inches.

    Args:
        text: one line, not a formula.
        size_pt: type size.
        bold: heavy type, which is wider.
    """
    font = FontProperties(size=size_pt, weight="bold" if bold else "normal")
    width_pt, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width_pt) / 72


def shortened(
    text: str, *, room_in: float, size_pt: float = TITLE_PT, bold: bool = True, n_last: int = 0
) -> str:
    """Cut a line that is wider than so many inches, with an ellipsis for what is missing.

    Args:
        text: one line.
        room_in: how wide it may be.
        size_pt: type size; a title's.
        bold: heavy type.
        n_last: how many of its last letters stay, after the ellipsis.
    """
    if width_in(text, size_pt=size_pt, bold=bold) <= room_in:
        return text
    head, tail = text[: len(text) - n_last], "…" + text[len(text) - n_last :]
    n_fitting = bisect_right(
        range(1, len(head) + 1),
        room_in,
        key=lambda n: width_in(head[:n] + tail, size_pt=size_pt, bold=bold),
    )
    return head[: max(1, n_fitting)] + tail
